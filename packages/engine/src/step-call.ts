import {
  canonicalBytes,
  canonicalJson,
  type DesiredResource,
  HyphaError,
  hex,
  type Json,
  Name,
  type Rid,
  ridOf,
} from '@hypha/protocol';
import { Ref, type ResourceUse, type Sals } from '@hypha/sal';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { findEngineVerb, type StepVerb } from './engine-verbs.ts';
import { isTooDeep, jsonBytes } from './json-bounds.ts';
import type { GuestContext } from './saga-context.ts';
import { withSecrets } from './secret-handles.ts';
import type { ScriptCall } from './step-runner.ts';

/** A call that passed every check and may be planned. */
export interface StepCall {
  readonly step: number;
  readonly verb: StepVerb;
  readonly name: Name | null;
  readonly rid: Rid | null;
  /** As the script gave them. */
  readonly rawArgs: Json;
  /** As `verb.parse` made them. */
  readonly args: unknown;
  /** For `ensure` verbs. */
  readonly desired: DesiredResource | null;
  readonly uses: ResourceUse | null;
}

export interface CallScope {
  readonly context: GuestContext;
  /** True for what this run has declared or the committed record holds. */
  isDeclared(rid: Rid): boolean;
}

/**
 * Checks one call of a hostile guest, in a fixed order with one code per check. Pure, so that a replay
 * refuses the same calls. Throws `HyphaError`: `E_HOST_CALLS`, `E_NAME`, `E_ARGUMENT`,
 * `E_SAL_UNAVAILABLE`, `E_CAPABILITY`, `E_REFERENCE` or `E_SECRET`.
 */
export function parseCall(scope: CallScope, call: ScriptCall): StepCall {
  const { grant, sals } = scope.context;
  const { payload } = grant;
  if (call.call > payload.limits.hostCalls) {
    throw new HyphaError(
      'E_HOST_CALLS',
      `call ${call.call} is more than limits.hostCalls, ${payload.limits.hostCalls}`,
    );
  }
  const name = call.name === null ? null : parseName(call.name);
  const verb = findEngineVerb(scope.context, call.verb, call.madeAtMs) ?? findVerb(sals, call.verb);
  if (verb.kind !== null && name === null) {
    throw new HyphaError('E_NAME', `${call.verb} needs the name of a ${verb.kind}`);
  }
  if (verb.kind === null && name !== null) {
    throw new HyphaError('E_ARGUMENT', `${call.verb} takes no name`);
  }
  if (verb.capability !== null && !payload.caps.includes(verb.capability)) {
    throw new HyphaError(
      'E_CAPABILITY',
      `${call.verb} needs the capability ${verb.capability}, which was not signed for`,
      { hint: `sign again with ${verb.capability} in caps` },
    );
  }
  if (payload.mode === 'task' && verb.class === 'ensure') {
    throw new HyphaError('E_ARGUMENT', `${call.verb}: a task declares nothing`, {
      hint: `get what exists by its name, or sign an apply: ${verb.kind}.get(name)`,
    });
  }
  assertArguments(call.args);
  for (const reference of findReferences(call.args)) checkReference(scope, reference);
  const rid = verb.kind === null || name === null ? null : ridFor(scope, verb.kind, name);
  const args = parseArgs(verb, withSecrets(grant, call.args));
  const declared = rid === null || name === null ? null : declare(scope, verb, { rid, name }, args);
  return {
    step: call.call,
    verb,
    name,
    rid,
    rawArgs: call.args,
    args,
    desired: declared?.desired ?? null,
    uses: declared?.uses ?? null,
  };
}

function parseName(text: string): Name {
  const parsed = Name.safeParse(text);
  if (parsed.success) return parsed.data;
  const shown = JSON.stringify(text.toWellFormed().slice(0, 100));
  throw new HyphaError('E_NAME', `${shown} is not a valid name`);
}

function findVerb(sals: Sals, name: string): StepVerb {
  const verb = sals.findVerb(name);
  const kind = name.split('.')[0] ?? name;
  const sal = sals.list.find((candidate) => candidate.kind === (verb?.kind ?? kind));
  if (sal?.status.state === 'unavailable') {
    throw new HyphaError(
      'E_SAL_UNAVAILABLE',
      `this node has no ${sal.kind}s: ${sal.status.reason ?? sal.status.driver}`,
    );
  }
  if (verb !== undefined) return verb;
  const shown = JSON.stringify(name.toWellFormed());
  throw new HyphaError('E_ARGUMENT', `this node knows no call ${shown}`);
}

function assertArguments(args: Json): void {
  if (isTooDeep(args)) throw new HyphaError('E_ARGUMENT', 'arguments nest too deep');
  const bytes = jsonBytes(args);
  if (bytes > ENGINE_LIMITS.argsBytesMax) {
    throw new HyphaError(
      'E_ARGUMENT',
      `arguments take ${bytes} bytes, at most ${ENGINE_LIMITS.argsBytesMax} are allowed`,
    );
  }
  try {
    canonicalJson(args);
  } catch (cause) {
    throw new HyphaError('E_ARGUMENT', 'arguments hold text that is not Unicode', { cause });
  }
}

/** Arguments as the journal keeps them: null for what it cannot keep, which is refused anyway. */
export function recordedArgs(args: Json): Json {
  if (isTooDeep(args) || jsonBytes(args) > ENGINE_LIMITS.argsBytesMax) return null;
  try {
    canonicalJson(args);
    return args;
  } catch {
    return null;
  }
}

/** Every object that claims to be a handle, wherever it is. */
function findReferences(args: Json): Json[] {
  if (typeof args !== 'object' || args === null) return [];
  if (!Array.isArray(args) && Object.hasOwn(args, '$rid')) return [args];
  return Object.values(args).flatMap((item: Json) => findReferences(item));
}

function checkReference(scope: CallScope, reference: Json): void {
  const parsed = Ref.safeParse(reference);
  if (!parsed.success) {
    throw new HyphaError('E_REFERENCE', 'an argument looks like a handle but is none', {
      hint: 'pass what a declaration returned, unchanged',
    });
  }
  const { $rid: rid, kind, name } = parsed.data;
  const label = `${kind} ${name}`;
  if (rid !== ridFor(scope, kind, name)) {
    throw new HyphaError('E_REFERENCE', `the handle of ${label} belongs to another deployment`);
  }
  if (!scope.isDeclared(rid)) {
    throw new HyphaError('E_REFERENCE', `${label} is not declared in this deployment`);
  }
}

function ridFor(scope: CallScope, kind: string, name: string): Rid {
  const { grant, verifier } = scope.context;
  const { realm, deployment } = grant.payload;
  return ridOf(verifier, { realm, deployment, kind, name });
}

function parseArgs(verb: StepVerb, args: Json): unknown {
  try {
    return verb.parse(args);
  } catch (cause) {
    if (!(cause instanceof HyphaError)) {
      throw new HyphaError('E_ARGUMENT', `${verb.verb} cannot read its arguments`, { cause });
    }
    const path = cause.where?.path ?? '';
    // A step error has no `where`, and the path is what the operator needs.
    if (path === '' || cause.message.includes(path)) throw cause;
    throw new HyphaError(cause.code, `${cause.message} (at ${path})`, { cause, hint: cause.hint });
  }
}

function declare(
  scope: CallScope,
  verb: StepVerb,
  identity: { rid: Rid; name: Name },
  args: unknown,
): { desired: DesiredResource; uses: ResourceUse } | null {
  if (verb.class !== 'ensure' || verb.spec === undefined || verb.kind === null) return null;
  const { spec, uses } = verb.spec(args);
  const specHash = hex(scope.context.verifier.sha256(canonicalBytes(spec)));
  return { desired: { ...identity, kind: verb.kind, spec, specHash }, uses };
}
