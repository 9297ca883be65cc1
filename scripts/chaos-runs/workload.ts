import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import {
  buildCancelPayload,
  digestOf,
  type Envelope,
  fromBase64,
  isHyphaError,
  isTerminal,
  type RunView,
  type ScriptPayload,
  signCancel,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { SeededRandom } from '@hypha/testkit';
import type { Fleet } from '../../test/fixtures/fleet.ts';
import type { SignedRuns } from '../../test/fixtures/signed-runs.ts';
import { insist } from './insist.ts';
import { type ChaosScript, writeScript } from './script-writer.ts';

/** Small enough that two revisions of every deployment fit on a node of two cores. */
const LIMITS = {
  wallMs: 300_000,
  resources: { milliCpus: 100, memoryBytes: 128 * 2 ** 20, storageBytes: 64 * 2 ** 20 },
};
/** From its 202 to its end: everything may be killed over and over meanwhile. */
const END_MS_MAX = 420_000;
const POLL_MS = 200;

/** One accepted run, from its 202 on. */
export interface ChaosRun {
  readonly run: string;
  readonly deployment: string;
  readonly generation: number;
  readonly script: ChaosScript;
  /** When its node answered its cancel with a 202, epoch milliseconds: from there on it is final. */
  readonly cancelledAtMs: number | null;
  /** As the node shows it at its end; null when it did not end in time. */
  readonly end: RunView | null;
}

interface WorkloadDeps {
  readonly fleet: Fleet;
  readonly runs: SignedRuns;
  readonly image: string;
  readonly signal: AbortSignal;
}

/**
 * Revisions of one deployment, one after another; some are sent before the last has ended, some through the
 * coordinator, some cancelled. What is drawn depends on the seed alone, when it happens does not.
 */
export async function runDeployment(
  deps: WorkloadDeps,
  work: { readonly deployment: string; readonly count: number; readonly random: SeededRandom },
): Promise<ChaosRun[]> {
  const { deployment, count, random } = work;
  const ends: Promise<ChaosRun | null>[] = [];
  for (let generation = 1; generation <= count; generation++) {
    const script = writeScript(random, `${deployment}-${generation}`);
    const choices = {
      viaCoordinator: random.chance(0.4),
      cancelAfterMs: random.chance(0.2) ? random.int(0, 3000) : null,
      waits: random.chance(0.75),
    };
    const end = driveRun(deps, { deployment, generation, script, ...choices });
    // Whoever waits for all of them hears of it.
    end.catch(() => undefined);
    ends.push(end);
    if (choices.waits) await end;
  }
  return (await Promise.all(ends)).filter((run) => run !== null);
}

interface Choices {
  readonly deployment: string;
  readonly generation: number;
  readonly script: ChaosScript;
  readonly viaCoordinator: boolean;
  readonly cancelAfterMs: number | null;
}

/** Null for a revision that a later one overtook on its way to the node: it was never accepted. */
async function driveRun(deps: WorkloadDeps, choices: Choices): Promise<ChaosRun | null> {
  try {
    return await followRun(deps, choices);
  } catch (error) {
    if (isHyphaError(error, 'E_SUPERSEDED')) return null;
    throw error;
  }
}

async function followRun(deps: WorkloadDeps, choices: Choices): Promise<ChaosRun | null> {
  const { fleet, runs, image } = deps;
  const { deployment, generation, script, viaCoordinator, cancelAfterMs } = choices;
  const payload = runs.draft({
    deployment,
    generation,
    source: script.source,
    input: { image },
    caps: ['volume', 'container'],
    limits: LIMITS,
  });
  const envelope = runs.signPayload(payload);
  const run = await insist(deps.signal, async () => {
    const client = viaCoordinator ? fleet.coordinator : fleet.node;
    return (await client.submit({ envelope })).runs[0]?.run ?? '';
  });
  let cancelledAtMs: number | null = null;
  if (cancelAfterMs !== null) {
    await delay(cancelAfterMs);
    cancelledAtMs = await cancel(deps, payload, envelope, viaCoordinator);
  }
  const end = await awaitEnd(deps, run);
  if (end === 'refused') return null;
  return { run, deployment, generation, script, cancelledAtMs, end };
}

/** When the node accepted it; null when it came too late, or goes through the coordinator: it may come too late. */
async function cancel(
  deps: WorkloadDeps,
  { realm, aud, authority }: ScriptPayload,
  envelope: Envelope,
  viaCoordinator: boolean,
): Promise<number | null> {
  const { fleet } = deps;
  const target = digestOf(nodeVerifier, envelope.payloadType, fromBase64(envelope.payload));
  const payload = buildCancelPayload(
    { realm, nodes: aud.nodes, target, authority },
    { nowMs: Date.now(), randomBytes: (count) => new Uint8Array(randomBytes(count)) },
  );
  const signed = signCancel(payload, [fleet.operator]);
  try {
    await insist(deps.signal, async () => {
      const client = viaCoordinator ? fleet.coordinator : fleet.node;
      return await client.cancel({ envelope: signed });
    });
    return viaCoordinator ? null : Date.now();
  } catch (error) {
    if (isHyphaError(error, 'E_TOO_LATE')) return null;
    throw error;
  }
}

/** `refused`: the coordinator took it, and the node did not. */
async function awaitEnd(
  { fleet, signal }: WorkloadDeps,
  run: string,
): Promise<RunView | 'refused' | null> {
  const deadline = performance.now() + END_MS_MAX;
  while (performance.now() < deadline) {
    signal.throwIfAborted();
    const view = await fleet.node.run(run).catch(() => undefined);
    if (view !== undefined && isTerminal(view.state)) return view;
    const routed = await fleet.coordinator.run(run).catch(() => undefined);
    if (routed?.state === 'rejected' && routed.startedAt === null && view === undefined) {
      return 'refused';
    }
    await delay(POLL_MS);
  }
  return null;
}
