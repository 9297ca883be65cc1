import {
  buildScriptPayload,
  digestOf,
  firstBrokenEvent,
  fromBase64,
  isHyphaError,
  isTerminal,
  type JournalEvent,
  signScript,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { createFleet, SeededRandom } from '@hypha/testkit';
import { SimClock } from './sim-clock.ts';
import { SimNode } from './sim-node.ts';
import { type Op, type ScriptOps, writeOps } from './sim-script.ts';

/** Simulated time in which things go wrong, and after which everything has to have ended. */
const STORM_MS = 12_000;
const CALM_MS_MAX = 1_800_000;
/** After the last run: for the reconciler to make the node as recorded. */
const SETTLE_MS = 15_000;
const SOURCE = 'export default async function deploy() {}\n';
const LIMITS = {
  wallMs: 3_600_000,
  resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 1000 },
};

/** Keys are drawn once: what happens does not depend on them. */
const fleet = createFleet();
const nodeKey = generateKey().signer;

interface SimRun {
  readonly deployment: string;
  readonly generation: number;
  readonly mode: 'apply' | 'destroy';
  readonly ops: ScriptOps;
  readonly run: string;
  readonly digest: string;
  cancelledAtMs: number | null;
}

export interface SimReport {
  readonly seed: number;
  readonly runs: number;
  readonly faults: number;
  readonly violations: readonly string[];
  /** Everything that happened, in order: the same for the same seed. */
  readonly trace: readonly string[];
}

/** One node with a few deployments, in a storm of faults and then in calm. Everything is drawn from the seed. */
export async function simulate(seed: number): Promise<SimReport> {
  return await new Simulation(seed).run();
}

class Simulation {
  readonly #seed: number;
  readonly #random: SeededRandom;
  readonly #clock: SimClock;
  readonly #node: SimNode;
  readonly #runs: SimRun[] = [];
  readonly #trace: string[] = [];
  readonly #violations: string[] = [];
  #faults = 0;
  #senders = 0;
  #isCalm = false;
  #failure: unknown;

  constructor(seed: number) {
    this.#seed = seed;
    this.#random = new SeededRandom(seed);
    this.#clock = new SimClock(this.#random.fork());
    const random = this.#random.fork();
    const { authority } = fleet;
    this.#node = new SimNode({ clock: this.#clock, random, authority, signer: nodeKey });
  }

  async run(): Promise<SimReport> {
    try {
      await this.#node.start();
      for (let index = 0; index < this.#random.int(1, 3); index++) {
        this.#senders += 1;
        this.#watch(this.#send(`d${index}`, this.#random.fork()));
      }
      this.#watch(this.#storm(this.#random.fork()));
      await this.#clock.run(() => this.#isOver(), STORM_MS + CALM_MS_MAX);
      const settledAtMs = this.#clock.nowMs() + SETTLE_MS;
      void this.#clock.sleep(SETTLE_MS);
      await this.#clock.run(() => this.#clock.nowMs() >= settledAtMs, 2 * SETTLE_MS);
      await this.#inspect();
    } catch (error) {
      this.#violate(`G2 ${error instanceof Error ? error.message : error}`);
    } finally {
      await this.#node.close();
    }
    const { runs, faults } = { runs: this.#runs.length, faults: this.#faults };
    const violations = [...this.#violations, ...this.#node.world.violations];
    return { seed: this.#seed, runs, faults, violations, trace: this.#trace };
  }

  #watch(work: Promise<void>): void {
    work.catch((error: unknown) => {
      this.#failure ??= error;
    });
  }

  #isOver(): boolean {
    if (this.#failure !== undefined) throw this.#failure;
    if (!this.#isCalm || this.#senders > 0 || !this.#node.isUp) return false;
    return this.#node.life.journal.listLanes().length === 0;
  }

  async #send(deployment: string, random: SeededRandom): Promise<void> {
    const count = random.int(1, 3);
    for (let generation = 1; generation <= count; generation++) {
      await this.#clock.sleep(random.int(0, 4000));
      const mode = generation > 1 && random.chance(0.15) ? 'destroy' : 'apply';
      const ops = mode === 'apply' ? writeOps(random) : [];
      const cancelAfterMs = random.chance(0.2) ? random.int(0, 2000) : null;
      const sent = await this.#submit({ deployment, generation, mode, ops });
      if (cancelAfterMs === null) continue;
      await this.#clock.sleep(cancelAfterMs);
      await this.#cancel(sent);
    }
    this.#senders -= 1;
  }

  async #submit(work: Pick<SimRun, 'deployment' | 'generation' | 'mode' | 'ops'>): Promise<SimRun> {
    const { deployment, generation, mode, ops } = work;
    const payload = buildScriptPayload(
      nodeVerifier,
      {
        ...{ deployment, generation, mode, nodes: [this.#node.id], limits: LIMITS },
        authority: fleet.authority,
        ...(mode === 'apply' ? { source: SOURCE, input: { ops: [...ops] } } : {}),
        caps: mode === 'apply' ? ['thing'] : [],
      },
      {
        nowMs: this.#clock.nowMs(),
        randomBytes: (length) => Uint8Array.from({ length }, () => this.#random.int(0, 255)),
      },
    );
    const envelope = signScript(payload, [fleet.operator]);
    const digest = digestOf(nodeVerifier, envelope.payloadType, fromBase64(envelope.payload));
    const { keyid } = fleet.operator;
    const run = await this.#insist(() => this.#node.admit(envelope, payload, [keyid]));
    const sent = { ...work, run, digest, cancelledAtMs: null };
    this.#runs.push(sent);
    return sent;
  }

  async #cancel(sent: SimRun): Promise<void> {
    try {
      await this.#insist(() => this.#node.cancel(sent.digest, [fleet.operator.keyid]));
      sent.cancelledAtMs = this.#clock.nowMs();
    } catch (error) {
      if (!isHyphaError(error, 'E_TOO_LATE')) throw error;
    }
  }

  /** Until a supervisor that lives has answered: the same work twice is the same work. */
  async #insist<T>(ask: () => Promise<T>): Promise<T> {
    for (;;) {
      if (this.#node.isUp) {
        const { life } = this.#node;
        const lost = life.died.promise.then((): 'lost' => 'lost');
        const answer = await Promise.race([ask(), lost]);
        if (answer !== 'lost') return answer;
      }
      await this.#clock.sleep(100);
    }
  }

  async #storm(random: SeededRandom): Promise<void> {
    const endMs = this.#clock.nowMs() + STORM_MS;
    const pauseMs = random.pick([300, 1500, 6000]);
    while (this.#clock.nowMs() < endMs) {
      await this.#clock.sleep(random.int(0, 2 * pauseMs));
      this.#faults += 1;
      await this.#strike(random);
    }
    this.#node.queue.isUp = true;
    for (const runner of this.#node.runners) runner.resume();
    if (!this.#node.isUp) await this.#node.start();
    this.#isCalm = true;
  }

  async #strike(random: SeededRandom): Promise<void> {
    const node = this.#node;
    const { queue } = node;
    const runners = node.runners.filter(({ isDead }) => !isDead);
    const fault = random.int(1, 10);
    this.#trace.push(`${this.#clock.nowMs()} fault ${fault}`);
    switch (fault) {
      case 1:
      case 2:
        if (runners.length > 0) node.killRunner(random.pick(runners));
        return;
      case 3:
        if (runners.length > 0) this.#freeze(random.pick(runners), random.int(100, 15_000));
        return;
      case 4:
        if (runners.length > 0) random.pick(runners).loseHost(random);
        return;
      case 5:
      case 6:
        node.crash();
        await this.#clock.sleep(random.int(0, 3000));
        return await node.start();
      case 7:
        queue.wipe();
        return;
      case 8:
        queue.isUp = !queue.isUp;
        return;
      case 9: {
        queue.duplicate();
        const known = this.#runs.at(-1);
        if (known !== undefined) queue.forge({ run: known.run, epoch: random.int(1, 5) });
        return;
      }
      default:
        node.reboot();
        await this.#clock.sleep(random.int(100, 3000));
        await node.start();
    }
  }

  #freeze(runner: { stop(): void; resume(): void }, forMs: number): void {
    runner.stop();
    void this.#clock.sleep(forMs).then(() => runner.resume());
  }

  async #inspect(): Promise<void> {
    const { journal } = this.#node.life;
    for (const sent of this.#runs) {
      const events = await journal.runs.readAllEvents(sent.run);
      const label = `${sent.deployment}-${sent.generation}`;
      for (const { at, epoch, body } of events) {
        const step = 'step' in body ? ` ${body.step}` : '';
        this.#trace.push(`${label} ${at} ${epoch} ${body.type}${step}`);
      }
      this.#inspectRun(sent, label, events);
    }
    for (const deployment of new Set(this.#runs.map((sent) => sent.deployment))) {
      await this.#inspectDeployment(deployment);
    }
  }

  #inspectRun(sent: SimRun, label: string, events: readonly JournalEvent[]): void {
    const say = (line: string) => this.#violate(`${line} (${label})`);
    const finished = events.map(({ body }) => body).filter(({ type }) => type === 'finished');
    const [end] = finished;
    if (finished.length !== 1 || end?.type !== 'finished') {
      say(`G2 it ended ${finished.length} times`);
      return;
    }
    if (firstBrokenEvent(nodeVerifier, events) !== null) say('G7 its journal is broken');
    const outcomes = events.flatMap(({ body }) =>
      body.type === 'step-result' || body.type === 'step-error' ? [body.step] : [],
    );
    if (new Set(outcomes).size !== outcomes.length) say('G3 a step has two outcomes');
    const { code = '', detail = '' } = (end.problem ?? {}) as { code?: string; detail?: string };
    const legal = legalCodes(sent);
    if (end.state !== 'succeeded' && !legal.includes(code))
      say(`G2 it ended ${end.state} ${code}: ${detail}`);
    if (end.leftovers.some(({ reason }) => !reason.includes('is not undone')))
      say(`G5 left over: ${JSON.stringify(end.leftovers)}`);
    const { cancelledAtMs } = sent;
    if (cancelledAtMs === null) return;
    if (end.state === 'succeeded') say('G6 it was cancelled and succeeded');
    if (events.some(({ at, body }) => body.type === 'step-intent' && at > cancelledAtMs))
      say('G6 a step began after its cancel was accepted');
  }

  /** The things of the node are those of the newest revision that succeeded, each as declared. */
  async #inspectDeployment(deployment: string): Promise<void> {
    const { journal } = this.#node.life;
    let declared = new Map<string, number>();
    for (const sent of this.#runs.filter((each) => each.deployment === deployment)) {
      const { state } = await journal.runs.getRun(sent.run);
      if (!isTerminal(state) || state !== 'succeeded') continue;
      const events = await journal.runs.readAllEvents(sent.run);
      const committed = events.map(({ body }) => body).find(({ type }) => type === 'committed');
      const desired = committed?.type === 'committed' ? committed.desired : [];
      declared = new Map(desired.map(({ name, spec }) => [name, (spec as { size: number }).size]));
    }
    const things = [...this.#node.world.things.values()].filter(
      (thing) => thing.deployment === deployment,
    );
    const text = (sizes: readonly (readonly [string, number])[]) =>
      sizes
        .map(([name, size]) => `${name}:${size}`)
        .sort()
        .join(' ');
    const held = text(things.map(({ name, size }) => [name, size] as const));
    this.#trace.push(`${deployment} holds ${held}`);
    if (held !== text([...declared])) {
      this.#violate(`G5 ${deployment} holds [${held}], declared is [${text([...declared])}]`);
    }
    if (things.some(({ whole, up }) => !whole || !up))
      this.#violate(`G4 ${deployment} is not whole`);
  }

  #violate(line: string): void {
    this.#violations.push(line);
  }
}

/** What a run of these ops may end with while everything around it fails. */
function legalCodes({ ops, cancelledAtMs }: SimRun): readonly string[] {
  const all = ops.flatMap(flat);
  const codes = ['E_SUPERSEDED', 'E_SANDBOX'];
  if (cancelledAtMs !== null) codes.push('E_CANCELLED');
  if (all.some(({ op }) => op === 'throw')) codes.push('E_SCRIPT');
  if (all.some((op) => op.op === 'run' && !op.idempotent)) codes.push('E_UNKNOWN_OUTCOME');
  if (all.some((op) => op.op === 'ensure' && op.fails === 'always')) codes.push('E_HEALTH');
  return codes;
}

function flat(op: Op): readonly Op[] {
  if (op.op === 'all') return op.ops.flatMap(flat);
  return op.op === 'try' ? flat(op.one) : [op];
}
