/** From a compiled script and flags to the payload that will be signed. Asks the services only to read. */
import {
  buildScriptPayload,
  HyphaError,
  isHyphaError,
  type Json,
  type ScriptPayload,
  type SecretValues,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { fetchAuthority } from './authority-chain.ts';
import { systemEntropy } from './authority-signing.ts';
import type { CompiledScript } from './compile/index.ts';
import { readExpected } from './expected-plans.ts';
import { parseInteger } from './option-parsers.ts';
import {
  type Before,
  chooseTargets,
  findBefore,
  resolveTargets,
  type Target,
  type TargetFlags,
} from './revision-target.ts';
import { type LimitFlags, readLimits } from './run-limits.ts';
import { deploymentOf } from './script-work.ts';
import { sealForNodes } from './seal-keys.ts';
import type { Session } from './session.ts';

export interface ApplyFlags extends TargetFlags, LimitFlags {
  readonly input?: string[];
  readonly name?: string;
  readonly realm?: string;
  readonly generation?: string;
  readonly message?: string;
  readonly ttl?: string;
  readonly onFailure?: 'undo' | 'keep';
  readonly deleteData?: string;
  readonly secret?: string[];
  readonly expect?: string[];
}

export interface SignedWork {
  readonly payload: ScriptPayload;
  /** For people; the payload holds ids. */
  readonly nodeNames: readonly string[];
}

const GENERATION_MAX = Number.MAX_SAFE_INTEGER;

/** What a script is given: both are signed, the secrets sealed. */
export interface ScriptValues {
  readonly input: Record<string, Json>;
  readonly secrets: SecretValues;
}

/** A script that declares: to be applied, or planned only. */
export async function draftApply(
  session: Session,
  script: CompiledScript,
  { input, secrets }: ScriptValues,
  flags: ApplyFlags & { readonly mode?: 'apply' | 'plan' },
): Promise<SignedWork> {
  const { realm, deployment } = deploymentOf(script, flags);
  const limits = readLimits(flags);
  const before = await findBefore(session, realm, deployment, flags);
  const { resources } = limits;
  const targets = await chooseTargets(session, { realm, resources, before, flags });
  const expect = readExpected(flags.expect ?? [], targets);
  return draft(session, flags, {
    ...{ realm, deployment, before, targets, mode: flags.mode ?? 'apply' },
    ...{ source: script.source, input, secrets, caps: script.caps, limits },
    ...(expect === undefined ? {} : { expect }),
  });
}

/** What a task is made of, from a file or from what a command knows. */
export interface TaskScript {
  readonly realm: string;
  readonly deployment: string;
  readonly source: string;
  readonly caps: readonly string[];
  readonly limits?: Partial<ReturnType<typeof readLimits>>;
}

/**
 * A script that works on what a deployment has, on the nodes that have it. Throws `E_NOT_FOUND` when there is no
 * such deployment.
 */
export async function draftTask(
  session: Session,
  script: TaskScript,
  values: ScriptValues,
  flags: ApplyFlags,
): Promise<SignedWork> {
  const { realm, deployment } = script;
  const before = await findBefore(session, realm, deployment, flags);
  const named = flags.node ?? [];
  if (before.nodes.length === 0 && named.length === 0) throw noDeployment(realm, deployment);
  const targets = await resolveTargets(session, named.length > 0 ? named : before.nodes, flags);
  // A task counts for no generation: it is of the newest there is.
  const current = { ...before, generation: Math.max(0, before.generation - 1) };
  return draft(session, flags, { ...script, ...values, before: current, targets, mode: 'task' });
}

function noDeployment(realm: string, deployment: string): HyphaError {
  return new HyphaError('E_NOT_FOUND', `no deployment ${realm}/${deployment}`, {
    hint: 'hypha deployment list',
  });
}

export async function draftDestroy(
  session: Session,
  deployment: string,
  flags: ApplyFlags,
): Promise<SignedWork> {
  const realm = flags.realm ?? 'default';
  const before = await findBefore(session, realm, deployment, flags);
  if (before.nodes.length === 0 && (flags.node ?? []).length === 0) {
    throw noDeployment(realm, deployment);
  }
  const wanted = (flags.node ?? []).length > 0 ? (flags.node ?? []) : before.nodes;
  const targets = await resolveTargets(session, wanted, flags);
  return draft(session, flags, { realm, deployment, before, targets, mode: 'destroy', caps: [] });
}

async function draft(
  session: Session,
  flags: ApplyFlags,
  revision: {
    realm: string;
    deployment: string;
    before: Before;
    targets: readonly Target[];
    mode: ScriptPayload['mode'];
    expect?: Readonly<Record<string, string>>;
    source?: string;
    input?: Record<string, Json>;
    secrets?: SecretValues;
    caps: readonly string[];
    limits?: Partial<ReturnType<typeof readLimits>>;
  },
): Promise<SignedWork> {
  const { before, targets, secrets = {}, ...rest } = revision;
  const generation =
    flags.generation === undefined
      ? before.generation + 1
      : parseInteger(flags.generation, '--generation', { min: 1, max: GENERATION_MAX });
  const authority = await authorityView(session);
  const payload = buildScriptPayload(
    nodeVerifier,
    {
      ...rest,
      generation,
      nodes: targets.map(({ id }) => id),
      authority,
      onFailure: flags.onFailure ?? 'undo',
      deleteData: (flags.deleteData ?? '').split(',').filter((name) => name !== ''),
      message: flags.message ?? '',
      lifetimeSeconds: parseInteger(flags.ttl ?? '900', '--ttl', { min: 1, max: 86_400 }),
    },
    systemEntropy(session.nowMs()),
  );
  const sealed = await sealForNodes(session, payload, secrets);
  return { payload: { ...payload, secrets: sealed }, nodeNames: targets.map(({ name }) => name) };
}

/** The chain as far as it can be seen: with the ledger away, only genesis, which every node knows. */
export async function authorityView(session: Session): Promise<{ seq: number; head: string }> {
  try {
    const { seq, head } = await fetchAuthority(session);
    return { seq, head };
  } catch (error) {
    if (!isHyphaError(error, 'E_UNAVAILABLE')) throw error;
    return { seq: 0, head: session.context.genesis };
  }
}
