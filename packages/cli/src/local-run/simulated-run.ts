/**
 * One run on a simulated node, in this process: the engine and the sandbox of a real node, simulated SALs, a
 * journal in memory, and time that passes only while everything waits.
 */
import { type Fault, type Guest, runSaga, type SagaOutcome } from '@hypha/engine';
import {
  DATA_KINDS,
  type DesiredResource,
  HyphaError,
  type JournalBody,
  type JournalEvent,
  type Leftover,
  type NodeId,
  type ScriptPayload,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { composeSals, type ResourceRecord, type Sals } from '@hypha/sal';
import { openSimulatedSals } from '@hypha/sal/simulated';
import type { SandboxPool } from '@hypha/sandbox';
import { CrashPoint } from './crash-point.ts';
import { IdleClock } from './idle-clock.ts';
import { LocalJournal } from './local-journal.ts';
import type { SimulatedPlace } from './simulated-place.ts';
import { watchGuest } from './watched-guest.ts';
import { watchSals } from './watched-sals.ts';

/** Makes a step fail, to see what becomes of the run. */
export interface StepFault {
  /** Number of the step, or name of the resource it is on. */
  readonly target: string;
  readonly error: HyphaError;
}

export interface SimulatedRun {
  readonly run: string;
  readonly payload: ScriptPayload;
  readonly node: {
    readonly id: NodeId;
    readonly name: string;
    readonly labels: Record<string, string>;
  };
  /** Names of the secrets that the script may use; they have no values here. */
  readonly secrets: readonly string[];
  readonly committed: readonly DesiredResource[];
  readonly faults: readonly StepFault[];
  /** What the clock of the node says at the start, epoch milliseconds. */
  readonly startMs: number;
}

export interface SimulationDeps {
  readonly place: SimulatedPlace;
  readonly pool: SandboxPool;
  readonly cancel: AbortSignal;
  readonly onEvent: (event: JournalEvent) => void;
  readonly onFault: (fault: Fault) => void;
}

export interface SimulationEnd {
  readonly events: readonly JournalEvent[];
  /** Where it could have crashed, or did. */
  readonly points: readonly string[];
  /** Targets of faults that were met. */
  readonly struck: ReadonlySet<string>;
  /** What the deployment holds after it; undefined when the run did not commit. */
  readonly desired: readonly DesiredResource[] | undefined;
  readonly removed: readonly DesiredResource[];
  readonly retained: readonly DesiredResource[];
  /** By how much the node's clock went on, milliseconds. */
  readonly tookMs: number;
}

/** A run that is parked and taken up again; bounds a script that sleeps for ever in small pieces. */
const EPOCHS_MAX = 100_000;

/**
 * Runs it to its end. What a supervisor does after the commit is done too: what is no longer declared goes,
 * volumes stay unless their data may be deleted.
 * @param crashAt number of the point where the runner dies, once; another goes on from its journal
 */
export async function simulateRun(
  run: SimulatedRun,
  deps: SimulationDeps,
  crashAt = Number.POSITIVE_INFINITY,
): Promise<SimulationEnd> {
  return await new Simulation(run, deps).run(crashAt);
}

class Simulation {
  readonly #run: SimulatedRun;
  readonly #deps: SimulationDeps;
  readonly #sals: Sals;
  readonly #journal: LocalJournal;
  readonly #struck = new Set<string>();
  #clock: IdleClock;

  constructor(run: SimulatedRun, deps: SimulationDeps) {
    this.#run = run;
    this.#deps = deps;
    const { place, onEvent } = deps;
    const { volume, container } = openSimulatedSals({
      ...{ folder: place.sals, node: run.node.id, effects: place.effects },
    });
    this.#sals = composeSals([volume, container]);
    this.#clock = new IdleClock(run.startMs);
    this.#journal = new LocalJournal(run.run, () => this.#clock.nowMs(), onEvent);
  }

  async run(crashAt: number): Promise<SimulationEnd> {
    const crash = new CrashPoint(crashAt);
    const outcome = await this.#runEpochs(crash);
    const tookMs = this.#clock.nowMs() - this.#run.startMs;
    const { events } = this.#journal;
    const end = { events, points: crash.points, struck: this.#struck, tookMs };
    if (outcome.state !== 'committed') {
      return { ...end, desired: undefined, removed: [], retained: [] };
    }
    const desired = this.#committed();
    const { removed, retained, leftovers } = await this.#prune(desired);
    this.#journal.finish({
      ...{ type: 'finished', state: 'succeeded', problem: null, undone: 0, leftovers },
    });
    return { ...end, desired, removed, retained };
  }

  async #runEpochs(crash: CrashPoint): Promise<SagaOutcome> {
    let died = false;
    for (let count = 0; count < EPOCHS_MAX; count++) {
      const epoch = new Epoch(this.#clock, died ? new CrashPoint(Number.POSITIVE_INFINITY) : crash);
      const outcome = await Promise.race([this.#runEpoch(epoch), epoch.crash.reached]);
      if (outcome !== 'crashed' && outcome.state !== 'waiting') return outcome;
      await epoch.end();
      died ||= outcome === 'crashed';
      // What died still holds its clock, so each epoch has one of its own.
      this.#clock = new IdleClock(this.#clock.nowMs());
      if (outcome !== 'crashed') this.#clock.moveTo(outcome.wakeAtMs);
    }
    throw new HyphaError('E_DEADLINE', `${this.#run.run} was taken up ${EPOCHS_MAX} times`, {
      hint: 'sleep for longer, or wait with waitFor',
    });
  }

  async #runEpoch(epoch: Epoch): Promise<SagaOutcome> {
    const { run, payload, node, committed, secrets } = this.#run;
    const { pool, cancel, onFault } = this.#deps;
    const journal = this.#journal.open();
    return await runSaga({
      grant: {
        ...{ run, epoch: this.#journal.epoch, payload, node, runner: 'simulate', committed },
        ...{ bootId: 'simulated', expectedPlan: null },
        secrets: Object.fromEntries(secrets.map((name) => [name, SECRET_VERSION])),
      },
      journal: {
        ...journal,
        append: (bodies) =>
          epoch.effect(bodies.map(describe).join(', '), () => journal.append(bodies)),
      },
      sals: watchSals(this.#sals, ({ phase, context }, work) => {
        if (phase !== 'apply' && phase !== 'undo') return epoch.clock.during(work);
        return epoch.effect(`${phase} of step ${context.step}`, () => {
          if (phase === 'apply') this.#strike(context);
          return work();
        });
      }),
      openGuest: (request) => epoch.openGuest(() => pool.openGuest(request)),
      clock: epoch.clock,
      verifier: nodeVerifier,
      cancel,
      drain: NEVER,
      onFault,
    });
  }

  #strike({ step, name }: { readonly step: number; readonly name: string | null }): void {
    const fault = this.#run.faults.find(({ target }) => target === String(step) || target === name);
    if (fault === undefined) return;
    this.#struck.add(fault.target);
    throw fault.error;
  }

  #committed(): readonly DesiredResource[] {
    const committed = this.#journal.events
      .map(({ body }) => body)
      .find((body) => body.type === 'committed');
    return committed?.desired ?? [];
  }

  async #prune(desired: readonly DesiredResource[]) {
    const { payload, committed } = this.#run;
    const kept = new Set(desired.map(({ rid }) => rid));
    const removed: DesiredResource[] = [];
    const retained: DesiredResource[] = [];
    const leftovers: Leftover[] = [];
    // The newest first: what was made of others goes before them.
    for (const resource of committed.filter(({ rid }) => !kept.has(rid)).reverse()) {
      const deleteData = payload.deleteData.includes(resource.name);
      const { realm, deployment } = payload;
      const record: ResourceRecord = { ...resource, realm, deployment };
      const isData = DATA_KINDS.has(resource.kind) && !deleteData;
      try {
        const signal = this.#deps.cancel;
        await this.#sals.findKind(resource.kind)?.remove(record, { deleteData, signal });
        (isData ? retained : removed).push(resource);
      } catch (error) {
        const { rid, kind, name } = resource;
        leftovers.push({ rid, kind, name, reason: String(error) });
      }
    }
    return { removed, retained, leftovers };
  }
}

/** One runner's hold on the run, until it ends or dies. */
class Epoch {
  readonly clock: IdleClock;
  readonly crash: CrashPoint;
  readonly #guests: Guest[] = [];
  readonly #inFlight = new Set<Promise<unknown>>();

  constructor(clock: IdleClock, crash: CrashPoint) {
    this.clock = clock;
    this.crash = crash;
  }

  /** What changes the world, with a point to crash at before and after it. */
  effect<T>(what: string, work: () => Promise<T>): Promise<T> {
    return this.clock.during(async () => {
      await this.crash.pass(`before ${what}`);
      const done = work();
      this.#inFlight.add(done);
      const result = await done.finally(() => this.#inFlight.delete(done));
      await this.crash.pass(`after ${what}`);
      return result;
    });
  }

  async openGuest(open: () => Promise<Guest>): Promise<Guest> {
    const guest = await this.clock.during(open);
    this.#guests.push(guest);
    return watchGuest(guest, { during: (work) => this.clock.during(work) });
  }

  /** A process that dies takes its guests with it, and what it had begun is over before another takes its place. */
  async end(): Promise<void> {
    await Promise.allSettled([...this.#inFlight]);
    await Promise.all(this.#guests.map((guest) => guest.close()));
  }
}

/** A simulation is given names of secrets only. */
const SECRET_VERSION = '0'.repeat(32);
const NEVER = new AbortController().signal;

function describe(body: JournalBody): string {
  return 'step' in body ? `${body.type} ${body.step}` : body.type;
}
