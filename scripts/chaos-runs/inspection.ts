import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import {
  firstBrokenEvent,
  fromBase64,
  type JournalEvent,
  type ReceiptPayload,
  verifyReceipt,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { waitFor } from '@hypha/testkit';
import type { Fleet } from '../../test/fixtures/fleet.ts';
import { poolFolders, runtimeContainers } from '../../test/fixtures/node-world.ts';
import type { SignedRuns } from '../../test/fixtures/signed-runs.ts';
import { insist } from './insist.ts';
import type { ChaosRun } from './workload.ts';

/** For repairs and deliveries that the last fault left to do. */
const QUIET_MS_MAX = 180_000;

/** What a script may fail with while everything around it is killed. */
const LEGAL_CODES = ['E_UNKNOWN_OUTCOME', 'E_CANCELLED', 'E_SUPERSEDED'];

interface InspectionDeps {
  readonly fleet: Fleet;
  readonly runs: SignedRuns;
  /** True: volumes and containers can be looked at without asking Hypha. */
  readonly isReal: boolean;
  readonly signal: AbortSignal;
}

/** Looks at everything when all is quiet; each line that comes back is a broken promise. */
export async function inspect(
  deps: InspectionDeps,
  ended: readonly ChaosRun[],
): Promise<readonly string[]> {
  const found: string[] = [];
  const key = await nodeKey(deps.fleet);
  for (const run of ended) found.push(...(await inspectRun(deps, run, key)));
  const deployments = new Set(ended.map(({ deployment }) => deployment));
  const kept: string[] = [];
  for (const deployment of deployments) {
    const own = ended.filter((run) => run.deployment === deployment);
    found.push(...(await inspectRecord(deps, deployment, own, kept)));
  }
  if (deps.isReal) found.push(...(await inspectWorld(deps, kept)), ...inspectWords(deps, ended));
  return found;
}

/** G2, G3, G6 and the receipt. */
async function inspectRun(
  { fleet, runs, signal }: InspectionDeps,
  run: ChaosRun,
  key: Uint8Array,
): Promise<string[]> {
  const { end } = run;
  if (end === null) return [`G2 ${run.run} has not ended: ${await standingOf(fleet, run.run)}`];
  const found: string[] = [];
  const say = (line: string) =>
    void found.push(`${line} (${run.run}, ${run.deployment} ${run.generation})`);
  const events = await insist(signal, () => runs.events(run.run));
  if (firstBrokenEvent(nodeVerifier, events) !== null) say('G7 the journal is broken');
  const finished = events.filter(({ body }) => body.type === 'finished');
  if (finished.length !== 1) say(`G2 it ended ${finished.length} times`);
  for (const step of repeatedSteps(events)) say(`G3 step ${step} has two outcomes`);
  const wanted = run.script.throws ? ['failed'] : ['succeeded'];
  const code = end.problem?.code ?? '';
  const isLegal = wanted.includes(end.state) || LEGAL_CODES.includes(code);
  const isOwnError = run.script.throws && code === 'E_SCRIPT';
  if (!isLegal || (end.state === 'failed' && !isOwnError && !LEGAL_CODES.includes(code))) {
    say(`G2 it ended ${end.state} with ${code}: ${end.problem?.detail ?? ''}`);
  }
  if (run.cancelledAtMs !== null) {
    if (end.state === 'succeeded') say('G6 it was cancelled and succeeded');
    const late = events.find(
      ({ at, body }) => body.type === 'step-intent' && at > (run.cancelledAtMs ?? 0),
    );
    if (late !== undefined) say(`G6 event ${late.seq} began a step after its cancel was accepted`);
  }
  const receipt = await waitFor(
    async () => {
      const envelope = await fleet.node.receipt(run.run);
      return verifyReceipt(nodeVerifier, { envelope, publicKey: key }).payload;
    },
    { timeoutMs: QUIET_MS_MAX, what: `receipt of ${run.run}` },
  ).catch((error: unknown) => void say(`G7 no receipt: ${error}`));
  if (receipt) checkReceipt(receipt, run, events, say);
  return found;
}

/** How far a run got that did not end: its newest events. */
async function standingOf(fleet: Fleet, run: string): Promise<string> {
  const { state } = await fleet.coordinator.run(run).catch(() => fleet.node.run(run));
  const { items } = await fleet.node.journal(run, { limit: 500 }).catch(() => ({ items: [] }));
  const events = items.slice(-12).map(({ at, epoch, body }) => {
    const step = 'step' in body ? ` ${body.step}` : '';
    return `${new Date(at).toISOString()} ${epoch} ${body.type}${step}`;
  });
  return [state, ...events].join('\n    ');
}

function checkReceipt(
  receipt: ReceiptPayload,
  run: ChaosRun,
  events: readonly JournalEvent[],
  say: (line: string) => void,
): void {
  if (receipt.state !== run.end?.state) say(`G7 the receipt says ${receipt.state}`);
  if (receipt.journalHead !== events.at(-1)?.hash) say('G7 the receipt is of another journal');
  if (run.cancelledAtMs !== null && receipt.cancelRequestedAt === undefined)
    say('G6 the receipt does not mention the cancel');
  for (const { kind, name, reason } of receipt.leftovers) {
    // What ran in a container is not undone, and the receipt has to say so.
    if (!reason.includes('exec')) say(`G5 left over: ${kind} ${name}: ${reason}`);
  }
}

function repeatedSteps(events: readonly JournalEvent[]): number[] {
  const seen = new Set<number>();
  const repeated: number[] = [];
  for (const { body } of events) {
    if (body.type !== 'step-result' && body.type !== 'step-error') continue;
    if (seen.has(body.step)) repeated.push(body.step);
    seen.add(body.step);
  }
  return repeated;
}

/** G5: what the node says it has is what the newest successful revision declares. */
async function inspectRecord(
  { fleet }: InspectionDeps,
  deployment: string,
  runs: readonly ChaosRun[],
  kept: string[],
): Promise<string[]> {
  const succeeded = runs.filter(({ end }) => end?.state === 'succeeded');
  const newest = succeeded.reduce<ChaosRun | undefined>(
    (best, run) => ((best?.generation ?? 0) > run.generation ? best : run),
    undefined,
  );
  const declared = [...(newest?.script.declares ?? [])].sort();
  const isAsDeclared = async () => {
    const { items } = await fleet.node.listResources({ deployment, limit: 500 });
    const held = items.filter(({ status }) => status !== 'retained');
    const isUp = held.every(
      ({ status, state }) => status === 'committed' && ['ready', 'running'].includes(state),
    );
    const names = held.map(({ kind, name }) => `${kind} ${name}`).sort();
    return isUp && names.join() === declared.join() ? items : undefined;
  };
  try {
    const items = await waitFor(isAsDeclared, { timeoutMs: QUIET_MS_MAX, what: 'the record' });
    kept.push(...items.map(({ kind, rid }) => `${kind} ${rid}`));
    return [];
  } catch {
    const { items } = await fleet.node.listResources({ deployment, limit: 500 });
    kept.push(...items.map(({ kind, rid }) => `${kind} ${rid}`));
    const held = items.map(
      ({ kind, name, status, state }) => `${kind} ${name} (${status}, ${state})`,
    );
    return [`G5 ${deployment} holds [${held.join(', ')}], declared is [${declared.join(', ')}]`];
  }
}

/** G4 and G5 from outside: pool and runtime hold every resource once, and nothing else. */
async function inspectWorld({ fleet }: InspectionDeps, kept: readonly string[]): Promise<string[]> {
  const wanted = [...kept].sort();
  const seen = () =>
    [
      ...poolFolders(fleet.state, 'volumes').map((path) => `volume ${basename(path)}`),
      ...runtimeContainers(fleet.state).map((id) => `container ${id.slice(0, 26)}`),
    ].sort();
  try {
    await waitFor(() => seen().join() === wanted.join(), {
      timeoutMs: QUIET_MS_MAX,
      what: 'the world',
    });
    return [];
  } catch {
    const world = seen();
    const more = world.filter(
      (each, index) => !wanted.includes(each) || world.indexOf(each) !== index,
    );
    const less = wanted.filter((each) => !world.includes(each));
    return [
      ...more.map((each) => `G4 the node holds ${each}, once too often or nobody's`),
      ...less.map((each) => `G4 the node lacks ${each}`),
    ];
  }
}

/** G4: a call that may happen once left its word once. */
function inspectWords({ fleet }: InspectionDeps, runs: readonly ChaosRun[]): string[] {
  const files = poolFolders(fleet.state, 'volumes').map((path) => join(path, 'data', 'effects'));
  const texts = files.filter((file) => existsSync(file)).map((file) => readFileSync(file, 'utf8'));
  const words = texts.flatMap((text) => text.split('\n'));
  const found: string[] = [];
  for (const { script, end, run } of runs) {
    for (const word of script.words) {
      const times = words.filter((each) => each === word).length;
      if (times > 1) found.push(`G4 ${word} was written ${times} times (${run})`);
      if (times === 0 && end?.state === 'succeeded')
        found.push(`G3 ${word} was never written (${run})`);
    }
  }
  return found;
}

async function nodeKey(fleet: Fleet): Promise<Uint8Array> {
  const id = fleet.line.nodes[0]?.id ?? '';
  const { publicKey } = await waitFor(() => fleet.ledger.node(id), {
    what: 'the node at the ledger',
  });
  return fromBase64(publicKey);
}
