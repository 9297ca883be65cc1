import {
  buildScriptPayload,
  digestOf,
  firstBrokenEvent,
  fromBase64,
  isHyphaError,
  type JournalEvent,
  signScript,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { createFleet, SeededRandom } from '@hypha/testkit';
import { SimClock } from './sim-clock.ts';
import { SimDeployment } from './sim-deployment.ts';
import { SimNode } from './sim-node.ts';
import { inspectPlan, type MadePlan, readPlan } from './sim-plan.ts';
import {
  bodiesOf,
  codeOf,
  labelOf,
  legalCodes,
  type SimEnd,
  type SimRun,
  type SimWork,
} from './sim-run.ts';
import { failing, withoutRuns, writeOps, writeTask } from './sim-script.ts';

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
  readonly #keptRuns: SimRun[] = [];
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
    for (let turn = 1; turn <= count; turn++) {
      await this.#clock.sleep(random.int(0, 4000));
      const share = random.fraction();
      if (turn > 1 && share < 0.15) await this.#offer(random, { deployment, mode: 'destroy' });
      else if (turn > 1 && share < 0.27) await this.#sendTask(random, deployment);
      else if (share < 0.37) await this.#sendPlanned(random, deployment);
      else await this.#sendApply(random, deployment);
    }
    this.#senders -= 1;
  }

  async #sendApply(random: SeededRandom, deployment: string): Promise<void> {
    const isKept = random.chance(0.2);
    const written = writeOps(random);
    const ops = isKept && random.chance(0.6) ? failing(written) : written;
    const sent = await this.#offer(random, { deployment, ops, isKept });
    if (!isKept || random.chance(0.4)) return;
    this.#keptRuns.push(sent);
    await this.#clock.sleep(random.int(0, 3000));
    if (random.chance(0.2)) await this.#comeBetween(random, deployment);
    await this.#sendUndo(random, deployment);
  }

  async #sendUndo(random: SeededRandom, deployment: string): Promise<void> {
    const known = this.#keptRuns.filter((each) => each.deployment === deployment);
    if (known.length === 0) return;
    const { run } = random.pick(known);
    await this.#offer(random, { deployment, mode: 'task', ops: [{ op: 'undo', run }] });
  }

  async #sendTask(random: SeededRandom, deployment: string): Promise<void> {
    if (random.chance(0.3)) return await this.#sendUndo(random, deployment);
    await this.#offer(random, { deployment, mode: 'task', ops: writeTask(random) });
  }

  /** A plan, and once it is made an apply of the same script, which may be held to it. */
  async #sendPlanned(random: SeededRandom, deployment: string): Promise<void> {
    const written = writeOps(random);
    const ops = random.chance(0.8) ? withoutRuns(written) : written;
    const plan = await this.#offer(random, { deployment, mode: 'plan', ops });
    const hash = await this.#waitForPlan(plan);
    if (random.chance(0.3)) await this.#comeBetween(random, deployment);
    const expects = random.chance(0.7) ? hash : null;
    await this.#offer(random, { deployment, ops, plan, expects });
  }

  /** Another revision, that has ended when this resolves: one that waits would be replaced by the next. */
  async #comeBetween(random: SeededRandom, deployment: string): Promise<void> {
    await this.#waitForEnd(await this.#offer(random, { deployment, ops: writeOps(random) }));
  }

  async #waitForEnd({ run }: SimRun): Promise<void> {
    const isUnfinished = () => this.#node.life.journal.findUnfinished(run) !== undefined;
    while (!this.#node.isUp || isUnfinished()) await this.#clock.sleep(200);
  }

  /** Its hash; null when none was made. */
  async #waitForPlan(plan: SimRun): Promise<string | null> {
    await this.#waitForEnd(plan);
    const { run } = plan;
    const events = await this.#insist(() => this.#node.life.journal.runs.readAllEvents(run));
    return readPlan(events)?.hash ?? null;
  }

  /** Submits it, and takes some of it back. */
  async #offer(
    random: SeededRandom,
    work: Pick<SimWork, 'deployment'> & Partial<SimWork>,
  ): Promise<SimRun> {
    const earlier = this.#runs.filter(({ deployment }) => deployment === work.deployment);
    const { mode = 'apply' } = work;
    const isRevision = mode === 'apply' || mode === 'destroy';
    const newest = Math.max(0, ...earlier.map(({ generation }) => generation));
    const sent = await this.#submit({
      ...{ mode, ops: [], isKept: false, plan: null, expects: null },
      ...{ place: earlier.length + 1, generation: isRevision ? newest + 1 : Math.max(1, newest) },
      ...work,
    });
    if (random.chance(0.2)) {
      await this.#clock.sleep(random.int(0, 2000));
      await this.#cancel(sent);
    }
    return sent;
  }

  async #submit(work: SimWork): Promise<SimRun> {
    const { deployment, generation, mode, ops, isKept, expects } = work;
    const isScript = mode !== 'destroy';
    const payload = buildScriptPayload(
      nodeVerifier,
      {
        ...{ deployment, generation, mode, nodes: [this.#node.id], limits: LIMITS },
        authority: fleet.authority,
        ...(isScript ? { source: SOURCE, input: { ops: [...ops] } } : {}),
        caps: isScript ? ['thing'] : [],
        onFailure: isKept ? 'keep' : 'undo',
        ...(expects === null ? {} : { expect: { [this.#node.id]: expects } }),
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
    for (const deployment of new Set(this.#runs.map((sent) => sent.deployment))) {
      await this.#inspectDeployment(deployment);
    }
  }

  async #inspectDeployment(deployment: string): Promise<void> {
    const { world, life } = this.#node;
    const touches = world.touches.filter((touch) => touch.deployment === deployment);
    let label = deployment;
    const wanted = new SimDeployment((line) => this.#violate(`${line} (${label})`));
    const plans = new Map<SimRun, MadePlan>();
    let sinceMs = 0;
    for (const sent of this.#runs.filter((each) => each.deployment === deployment)) {
      label = labelOf(sent);
      const events = await life.journal.runs.readAllEvents(sent.run);
      for (const { at, epoch, body } of events) {
        const step = 'step' in body ? ` ${body.step}` : '';
        this.#trace.push(`${label} ${at} ${epoch} ${body.type}${step}`);
      }
      const end = this.#inspectRun(sent, label, events);
      if (end === undefined) return;
      const { record, names } = wanted;
      const document = sent.mode === 'plan' ? readPlan(events) : undefined;
      sinceMs = Math.max(sinceMs, events[0]?.at ?? 0);
      if (document !== undefined) plans.set(sent, { document, sinceMs, record });
      const plan = sent.plan === null ? undefined : plans.get(sent.plan);
      if (plan !== undefined) {
        const apply = { sent, events, end, record, names, touches };
        for (const line of inspectPlan(plan, apply)) this.#violate(`plan: ${line} (${label})`);
      }
      const isChanging = sent.mode === 'apply' || sent.mode === 'destroy' || sent.mode === 'task';
      if (!isChanging && touches.some(({ op }) => op?.startsWith(`${sent.run}/`)))
        this.#violate(`plan: it changed something (${label})`);
      wanted.take(sent, events, end);
      sinceMs = Math.max(sinceMs, events.at(-1)?.at ?? 0);
    }
    label = deployment;
    const things = [...world.things.values()].filter((thing) => thing.deployment === deployment);
    const held = things.map(({ name, size, mark }) => `${name}:${size}${mark}`).sort();
    this.#trace.push(`${deployment} holds ${held.join(' ')}`);
    wanted.inspect(things);
  }

  /** How it ended; undefined when it did not. */
  #inspectRun(sent: SimRun, label: string, events: readonly JournalEvent[]): SimEnd | undefined {
    const say = (line: string) => this.#violate(`${line} (${label})`);
    const finished = bodiesOf(events, 'finished');
    const [end] = finished;
    if (finished.length !== 1 || end === undefined) {
      say(`G2 it ended ${finished.length} times`);
      return undefined;
    }
    if (firstBrokenEvent(nodeVerifier, events) !== null) say('G7 its journal is broken');
    const outcomes = events.flatMap(({ body }) =>
      body.type === 'step-result' || body.type === 'step-error' ? [body.step] : [],
    );
    if (new Set(outcomes).size !== outcomes.length) say('G3 a step has two outcomes');
    const code = codeOf(end);
    this.#trace.push(`${label} ended ${end.state} ${code}`);
    if (end.state !== 'succeeded' && !legalCodes(sent).includes(code))
      say(`G2 it ended ${end.state} ${JSON.stringify(end.problem)}`);
    const { cancelledAtMs } = sent;
    if (cancelledAtMs === null) return end;
    if (end.state === 'succeeded') say('G6 it was cancelled and succeeded');
    if (events.some(({ at, body }) => body.type === 'step-intent' && at > cancelledAtMs))
      say('G6 a step began after its cancel was accepted');
    return end;
  }

  #violate(line: string): void {
    this.#violations.push(line);
  }
}
