/** What an adapter brings to the contract suites. */
import { type Json, type Rid, ridOf } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Effects } from '../effects.ts';
import type { ResourceRecord } from '../resource-kind.ts';
import { specHashOf } from '../resource-label.ts';
import type { Sal } from '../sal.ts';
import type { PlannedWorld, SalVerb, StepContext } from '../step-contract.ts';

/** A place of its own for one test: a pool, a folder. Made empty, gone after `close`. */
export interface ContractWorld {
  /** The adapter as a fresh process would open it on what is there now. */
  open(effects: Effects): Promise<Sal>;
  /**
   * All that a step may change and undo must bring back, content of data included, in a form that two
   * worlds share: no uuid, pid, time or inode, and not who changed a thing last.
   */
  capture(): Promise<Json>;
  close(): Promise<void>;
}

/** A call as a script makes it. */
export interface ContractCall {
  readonly verb: string;
  /** Of the resource the call is on; null when the verb names none. */
  readonly name: string | null;
  readonly args: Json;
}

export const CONTRACT_REALM = 'default';
export const CONTRACT_DEPLOYMENT = 'contract';

/** The rid that a resource of this kind and name has in the suites: for references in `args`. */
export function contractRid(kind: string, name: string): Rid {
  const identity = { realm: CONTRACT_REALM, deployment: CONTRACT_DEPLOYMENT, kind, name };
  return ridOf(nodeVerifier, identity);
}

/** A handle to a resource of the suites' deployment, as a script would pass it. */
export function contractRef(kind: string, name: string): { $rid: Rid; kind: string; name: string } {
  return { $rid: contractRid(kind, name), kind, name };
}

/** Step `step` of the run with this letter. */
export function contractContext(
  verb: SalVerb,
  call: ContractCall,
  options: { run?: string; step?: number; signal?: AbortSignal; planned?: PlannedWorld } = {},
): StepContext {
  const run = `run_${(options.run ?? 'b').repeat(26)}`;
  const step = options.step ?? 1;
  const named = verb.kind !== null && call.name !== null;
  return {
    realm: CONTRACT_REALM,
    deployment: CONTRACT_DEPLOYMENT,
    run,
    step,
    rid: named ? contractRid(verb.kind, call.name) : null,
    name: call.name,
    signal: options.signal ?? AbortSignal.timeout(120_000),
    op: `${run}/${step}`,
    ...(options.planned === undefined ? {} : { planned: options.planned }),
  };
}

export function getVerb(sal: Sal, name: string): SalVerb {
  const verb = sal.verbs.find((candidate) => candidate.verb === name);
  if (verb === undefined) throw new Error(`${sal.kind} has no verb ${name}`);
  return verb;
}

/** Plans and applies a call as an earlier run did. */
export async function applyWhole(
  sal: Sal,
  call: ContractCall,
  options: { run?: string; step?: number } = {},
): Promise<Json> {
  const verb = getVerb(sal, call.verb);
  const context = contractContext(verb, call, { run: 'a', ...options });
  const args = verb.parse(call.args);
  const { before } = await verb.plan(context, args);
  return verb.apply(context, args, before);
}

/** The desired record that the committed run of an `ensure` call leaves. */
export function recordOf(sal: Sal, call: ContractCall): ResourceRecord {
  const verb = getVerb(sal, call.verb);
  const declared = verb.spec?.(verb.parse(call.args));
  if (declared === undefined || verb.kind === null || call.name === null) {
    throw new Error(`${call.verb} declares no resource`);
  }
  return {
    realm: CONTRACT_REALM,
    deployment: CONTRACT_DEPLOYMENT,
    rid: contractRid(verb.kind, call.name),
    kind: verb.kind,
    name: call.name,
    spec: declared.spec,
    specHash: specHashOf(declared.spec),
  };
}
