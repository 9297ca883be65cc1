/** From a compiled script and flags to the payload that will be signed. Asks the services only to read. */
import {
  buildScriptPayload,
  HyphaError,
  isHyphaError,
  type Json,
  type NodeView,
  type ScriptPayload,
  type SecretValues,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { fetchAuthority } from './authority-chain.ts';
import { systemEntropy } from './authority-signing.ts';
import { listNodes } from './commands/node.ts';
import type { CompiledScript } from './compile/index.ts';
import { parseInteger, parsePairs } from './option-parsers.ts';
import { type LimitFlags, readLimits } from './run-limits.ts';
import { sealForNodes } from './seal-keys.ts';
import { type Session, selectNodes } from './session.ts';
import { nodeAddress, type ViaFlags } from './via.ts';

export interface ApplyFlags extends ViaFlags, LimitFlags {
  readonly input?: string[];
  readonly name?: string;
  readonly realm?: string;
  readonly node?: string[];
  readonly label?: string[];
  readonly count?: string;
  readonly generation?: string;
  readonly message?: string;
  readonly ttl?: string;
  readonly onFailure?: 'undo' | 'keep';
  readonly deleteData?: string;
  readonly secret?: string[];
}

export interface SignedWork {
  readonly payload: ScriptPayload;
  /** For people; the payload holds ids. */
  readonly nodeNames: readonly string[];
}

interface Target {
  readonly id: string;
  readonly name: string;
}

/** What is known of a deployment before this revision. */
interface Before {
  readonly generation: number;
  readonly nodes: readonly string[];
}

const GENERATION_MAX = Number.MAX_SAFE_INTEGER;

/** @param values what the script is given: both are signed, the secrets sealed */
export async function draftApply(
  session: Session,
  script: CompiledScript,
  values: { readonly input: Record<string, Json>; readonly secrets: SecretValues },
  flags: ApplyFlags,
): Promise<SignedWork> {
  const { input, secrets } = values;
  const realm = flags.realm ?? script.deployment.realm ?? 'default';
  const deployment = flags.name ?? script.deployment.name;
  if (deployment === undefined) {
    throw new HyphaError('E_ARGUMENT', 'the script names no deployment', {
      hint: "export const deployment = { name: 'web' }, or say --name",
    });
  }
  const limits = readLimits(flags);
  const before = await findBefore(session, realm, deployment, flags);
  const targets = await chooseTargets(session, {
    realm,
    resources: limits.resources,
    before,
    flags,
  });
  return draft(session, flags, {
    realm,
    deployment,
    before,
    targets,
    mode: 'apply',
    source: script.source,
    input,
    secrets,
    caps: script.caps,
    limits,
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
    throw new HyphaError('E_NOT_FOUND', `no deployment ${realm}/${deployment}`, {
      hint: 'hypha deployment list',
    });
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
    mode: 'apply' | 'destroy';
    source?: string;
    input?: Record<string, Json>;
    secrets?: SecretValues;
    caps: readonly string[];
    limits?: ReturnType<typeof readLimits>;
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
async function authorityView(session: Session): Promise<{ seq: number; head: string }> {
  try {
    const { seq, head } = await fetchAuthority(session);
    return { seq, head };
  } catch (error) {
    if (!isHyphaError(error, 'E_UNAVAILABLE')) throw error;
    return { seq: 0, head: session.context.genesis };
  }
}

async function findBefore(
  session: Session,
  realm: string,
  deployment: string,
  flags: ApplyFlags,
): Promise<Before> {
  if (flags.via === 'node') {
    const { items } = await session
      .nodeAt(flags.nodeUrl ?? nodeAddress(session.context, flags.node?.[0]).url)
      .listRuns({ deployment, limit: 500 });
    const runs = items.filter((run) => run.realm === realm);
    return {
      generation: Math.max(0, ...runs.map((run) => run.generation)),
      nodes: [...new Set(runs.map((run) => run.node))],
    };
  }
  try {
    const { generation, runs } = await session.coordinator().deployment(realm, deployment);
    return { generation, nodes: runs.map((run) => run.node) };
  } catch (error) {
    if (isHyphaError(error, 'E_NOT_FOUND')) return { generation: 0, nodes: [] };
    throw error;
  }
}

/**
 * Named nodes; otherwise those that hold the deployment, since its data is there; otherwise what the
 * coordinator proposes. Only the signed list counts, so a wrong proposal can do no harm but a poor choice.
 */
async function chooseTargets(
  session: Session,
  wanted: {
    realm: string;
    resources: ScriptPayload['limits']['resources'];
    before: Before;
    flags: ApplyFlags;
  },
): Promise<Target[]> {
  const { realm, resources, before, flags } = wanted;
  const named = flags.node ?? [];
  if (named.length > 0 || flags.via === 'node') return resolveTargets(session, named, flags);
  const free = flags.count === undefined && (flags.label ?? []).length === 0;
  if (free && before.nodes.length > 0) return resolveTargets(session, before.nodes, flags);
  const { nodes } = await session.coordinator().propose({
    realm,
    count: parseInteger(flags.count ?? '1', '--count', { min: 1, max: 1000 }),
    labels: parsePairs(flags.label ?? [], '--label'),
    resources,
    nodes: [],
  });
  return nodes.map(({ id, name }) => ({ id, name }));
}

async function resolveTargets(
  session: Session,
  wanted: readonly string[],
  flags: ApplyFlags,
): Promise<Target[]> {
  if (flags.via === 'node') {
    const names = wanted.length === 0 ? [undefined] : wanted;
    return names.map((name) => nodeAddress(session.context, name));
  }
  const nodes: NodeView[] = await listNodes(session);
  return selectNodes(nodes, wanted)
    .map((node) => successorOf(nodes, node))
    .map(({ id, name }) => ({ id, name }));
}

/** A node that was given a new key holds what it held. Bounded, should a coordinator let them go round. */
function successorOf(nodes: readonly NodeView[], node: NodeView, stepsMax = 64): NodeView {
  const next = nodes.find(({ id }) => id === node.replacedBy);
  return next === undefined || stepsMax === 0 ? node : successorOf(nodes, next, stepsMax - 1);
}
