import { type Json, Name, ridOf, type VerbClass } from '@hypha/protocol';
import { isWaitVerb } from './engine-verbs.ts';
import { isTooDeep } from './json-bounds.ts';
import type { RidLock } from './rid-locks.ts';
import type { SagaContext } from './saga-context.ts';
import type { ScriptCall } from './step-runner.ts';

/** Classes that change their resource: nobody else looks at it meanwhile. */
const EXCLUSIVE: readonly VerbClass[] = ['ensure', 'transition'];

/**
 * What a call needs for itself: its own resource, and to look at those it refers to. A call that will be refused
 * may need anything; it has no effect.
 */
export function locksOf(context: SagaContext, call: ScriptCall): RidLock[] {
  const shared = new Set<string>();
  if (!isTooDeep(call.args)) collectReferences(call.args, shared);
  const own = ownLock(context, call);
  if (own !== undefined) shared.delete(own.rid);
  const others = [...shared].map((rid) => ({ rid, isExclusive: false }));
  return own === undefined ? others : [own, ...others];
}

function ownLock({ sals, grant, verifier }: SagaContext, call: ScriptCall): RidLock | undefined {
  const verb = sals.findVerb(call.verb);
  if (verb === undefined) {
    // The engine's own verbs work on the run, one at a time; any number may wait.
    return isWaitVerb(call.verb) ? undefined : { rid: 'run', isExclusive: true };
  }
  const { kind, class: verbClass } = verb;
  const name = Name.safeParse(call.name);
  if (kind === null || !name.success) return undefined;
  const { realm, deployment } = grant.payload;
  const rid = ridOf(verifier, { realm, deployment, kind, name: name.data });
  return { rid, isExclusive: EXCLUSIVE.includes(verbClass) };
}

/** Whatever claims to be a handle, wherever it is. */
function collectReferences(args: Json, found: Set<string>): void {
  const waiting: Json[] = [args];
  for (let item = waiting.pop(); item !== undefined; item = waiting.pop()) {
    if (typeof item !== 'object' || item === null) continue;
    const rid = Array.isArray(item) ? undefined : (item as { readonly $rid?: Json }).$rid;
    if (typeof rid === 'string') found.add(rid);
    else for (const inner of Object.values(item)) waiting.push(inner);
  }
}
