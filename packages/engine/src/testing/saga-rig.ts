import {
  type DesiredResource,
  type GuestRequest,
  type GuestTurn,
  HyphaError,
  type JournalBody,
  type PlanDocument,
  RunLimits,
  ridOf,
  ScriptPayload,
  type ScriptPayloadInput,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Clock, Fault, Guest, RunGrant } from '../ports.ts';
import { runSaga, type SagaOutcome } from '../saga.ts';
import { BoxWorld } from './box-world.ts';
import { Fuse } from './fuse.ts';
import { MemoryJournal } from './memory-journal.ts';
import { type GuestDeath, type Script, ScriptedGuest } from './scripted-guest.ts';
import { VirtualClock } from './virtual-clock.ts';

export const NODE = `node_${'b'.repeat(32)}`;

function payloadWith(changes: Partial<ScriptPayloadInput>): ScriptPayload {
  return ScriptPayload.parse({
    v: 1,
    id: 'rev_01890000-0000-7000-8000-000000000000',
    realm: 'default',
    deployment: 'web',
    generation: 1,
    mode: 'apply',
    aud: { nodes: [NODE], count: 1 },
    iat: 0,
    nbf: 0,
    exp: 900,
    nonce: 'a'.repeat(22),
    authority: { seq: 0, head: '0'.repeat(64) },
    script: { engine: 'quickjs-es2023', sha256: '0'.repeat(64), source: 'scripted' },
    caps: ['box'],
    limits: RunLimits.parse({}),
    ...changes,
  });
}

/** One run in a world of its own: everything that outlives the engine, and epochs of the engine on it. */
export class SagaRig {
  readonly clock = new VirtualClock();
  readonly world: BoxWorld;
  readonly journal: MemoryJournal;
  readonly cancel = new AbortController();
  readonly drain = new AbortController();
  readonly faults: Fault[] = [];
  /** How the guests of the next epoch die, one after the other. */
  guestDeaths: GuestDeath[] = [];
  readonly guestRequests: GuestRequest[] = [];
  /** Instead of scripted guests. */
  openGuest: (() => Promise<Guest>) | undefined;
  /** Times that no guest can be opened. */
  guestRefusals = 0;
  guests: ScriptedGuest[] = [];
  /** Changes every turn of a guest before the engine sees it. */
  tamper: (turn: GuestTurn) => void = () => undefined;
  committed: DesiredResource[] = [];
  remains: DesiredResource[] = [];
  secrets: Record<string, string> = {};
  expectedPlan: PlanDocument | null = null;
  readonly payload: ScriptPayload;
  readonly #opened: Guest[] = [];
  readonly #changes: Partial<ScriptPayloadInput>;
  script: Script;

  /** @param earlier a run that this one comes after, in the same world, with its journal kept */
  constructor(script: Script, changes: Partial<ScriptPayloadInput> = {}, earlier?: SagaRig) {
    this.script = script;
    this.#changes = changes;
    this.world = earlier?.world ?? new BoxWorld(this.#kind);
    this.journal = new MemoryJournal(
      `run_${(earlier === undefined ? 'a' : 'b').repeat(26)}`,
      this.clock,
    );
    if (earlier !== undefined) this.journal.kept.set(earlier.journal.run, earlier.journal.events);
    this.payload = payloadWith(changes);
  }

  /** Boxes go by the capability that was signed for. */
  get #kind(): string {
    return this.#changes.caps?.[0] ?? 'box';
  }

  /** Runs one epoch on top of whatever is recorded. */
  async run(fuse = new Fuse(Number.POSITIVE_INFINITY)): Promise<SagaOutcome> {
    const grant: RunGrant = {
      run: this.journal.run,
      epoch: this.journal.epoch + 1,
      payload: this.payload,
      node: { id: NODE, name: 'node-1', labels: {} },
      runner: 'runner-1',
      bootId: 'boot-1',
      committed: this.committed,
      remains: this.remains,
      secrets: this.secrets,
      expectedPlan: this.expectedPlan,
    };
    const deaths = [...this.guestDeaths];
    return await runSaga({
      grant,
      journal: this.journal.open(fuse),
      sals: this.world.sals(fuse),
      openGuest: async (request) => {
        this.guestRequests.push(request);
        if (this.openGuest !== undefined) {
          const guest = await this.openGuest();
          this.#opened.push(guest);
          return guest;
        }
        if (this.guestRefusals > 0) {
          this.guestRefusals -= 1;
          throw new HyphaError('E_UNAVAILABLE', 'no sandbox host can be started');
        }
        const guest = new ScriptedGuest(this.script, deaths.shift(), this.tamper);
        this.guests.push(guest);
        return guest;
      },
      clock: this.#clockFor(fuse),
      verifier: nodeVerifier,
      cancel: this.cancel.signal,
      drain: this.drain.signal,
      onFault: (fault) => this.faults.push(fault),
    });
  }

  /** A dead process wakes up no more. */
  #clockFor(fuse: Fuse): Clock {
    const { clock } = this;
    return {
      nowMs: () => clock.nowMs(),
      monotonicMs: () => clock.monotonicMs(),
      jitter: () => clock.jitter(),
      sleep: async (ms, signal) => {
        await clock.sleep(ms, signal);
        await fuse.live();
      },
    };
  }

  /** Epochs that die at the given points, then one that ends. Returns its outcome and all points passed. */
  async runWithCrashes(at: readonly number[]): Promise<{ outcome: SagaOutcome; points: string[] }> {
    for (const point of at) {
      const fuse = new Fuse(point);
      const ended = await Promise.race([this.run(fuse), fuse.blown]);
      if (ended !== 'blown') return { outcome: ended, points: fuse.points };
      // A process that dies takes its guest with it.
      for (const guest of this.#opened.splice(0)) await guest.close();
    }
    const fuse = new Fuse(Number.POSITIVE_INFINITY);
    return { outcome: await this.run(fuse), points: fuse.points };
  }

  /** One epoch that dies the first time it passes a point of this name in a calm run. */
  async crashAt(point: string): Promise<void> {
    const calm = new SagaRig(this.script, this.#changes);
    calm.committed = this.committed;
    const { points } = await calm.runWithCrashes([]);
    const at = points.indexOf(point);
    if (at === -1) throw new Error(`no point ${point} in ${points.join(', ')}`);
    const fuse = new Fuse(at + 1);
    const ended = await Promise.race([this.run(fuse), fuse.blown]);
    if (ended !== 'blown') throw new Error(`the run ended before ${point}`);
  }

  bodiesOf<T extends JournalBody['type']>(type: T): Extract<JournalBody, { type: T }>[] {
    return this.journal
      .bodies()
      .filter((body): body is Extract<JournalBody, { type: T }> => body.type === type);
  }

  handle(name: string, changes: Record<string, string> = {}) {
    const { realm, deployment } = this.payload;
    const rid = ridOf(nodeVerifier, { realm, deployment, kind: this.#kind, name });
    return { $rid: rid, kind: this.#kind, name, ...changes };
  }
}
