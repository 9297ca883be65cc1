import {
  eventHash,
  GENESIS_HASH,
  HyphaError,
  type JournalBody,
  type JournalEvent,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Clock, RunJournal } from '../ports.ts';
import type { Fuse } from './fuse.ts';

/** A journal that outlives the engine that writes it, and refuses what the real one refuses. */
export class MemoryJournal {
  readonly run: string;
  readonly events: JournalEvent[] = [];
  epoch = 0;
  // run → journal of another run that was kept
  readonly kept = new Map<string, readonly JournalEvent[]>();
  /** Thrown by the next append that holds an event of this type. */
  refuseNext: { type: JournalBody['type']; error: HyphaError } | undefined;
  readonly #clock: Clock;

  constructor(run: string, clock: Clock) {
    this.run = run;
    this.#clock = clock;
  }

  bodies(): JournalBody[] {
    return this.events.map((event) => event.body);
  }

  /** A new epoch; journals of older ones are stale from now on. */
  open(fuse: Fuse): RunJournal {
    this.epoch += 1;
    const epoch = this.epoch;
    return {
      recorded: [...this.events],
      append: async (bodies) => {
        const label = bodies.map((body) => body.type).join('+');
        await fuse.pass(`before append ${label}`);
        if (epoch !== this.epoch) throw new HyphaError('E_STALE_EPOCH', `epoch ${epoch} is over`);
        const refused = bodies.find((body) => body.type === this.refuseNext?.type);
        if (refused !== undefined && this.refuseNext !== undefined) {
          const { error } = this.refuseNext;
          this.refuseNext = undefined;
          throw error;
        }
        const before = this.events.length;
        try {
          for (const body of bodies) this.#append(body, epoch);
        } catch (error) {
          this.events.length = before;
          throw error;
        }
        await fuse.pass(`after append ${label}`);
      },
      readKept: async (target) => {
        const events = this.kept.get(target);
        if (events === undefined)
          throw new HyphaError('E_NOT_FOUND', `nothing of ${target} is kept`);
        return events;
      },
    };
  }

  #append(body: JournalBody, epoch: number): void {
    this.#assertMayFollow(body);
    const unsigned = {
      run: this.run,
      seq: this.events.length + 1,
      epoch,
      at: this.#clock.nowMs(),
      prev: this.events.at(-1)?.hash ?? GENESIS_HASH,
      body: structuredClone(body),
    };
    this.events.push({ ...unsigned, hash: eventHash(nodeVerifier, unsigned) });
  }

  #assertMayFollow(body: JournalBody): void {
    const bodies = this.bodies();
    const has = (type: JournalBody['type'], step?: number) =>
      bodies.some((earlier) => {
        if (earlier.type !== type) return false;
        return step === undefined || ('step' in earlier && earlier.step === step);
      });
    const refuse = (reason: string): never => {
      throw new HyphaError('E_CONFLICT', `${body.type} may not follow: ${reason}`);
    };
    if (has('finished')) refuse('the run is finished');
    if (has('committed') && body.type !== 'finished') refuse('the run is committed');
    const isForward = ['step-intent', 'step-result', 'step-error', 'log', 'committed'];
    if (isForward.includes(body.type) && has('undo-intent')) refuse('the run is being undone');
    if (body.type === 'step-intent' && has('step-intent', body.step)) refuse('a second intent');
    if (body.type === 'step-result' || body.type === 'step-error') {
      if (!has('step-intent', body.step)) refuse('no intent');
      if (has('step-result', body.step) || has('step-error', body.step)) refuse('a second outcome');
    }
    const begun = bodies.filter((earlier) => earlier.type === 'step-intent');
    const open = begun.filter(({ step }) => !has('step-result', step) && !has('step-error', step));
    if (body.type === 'committed' && open.length > 0) refuse('a step has no outcome');
    if (body.type === 'undo-intent' && !has('step-intent', body.step)) refuse('no intent');
    if (body.type === 'undo-result' && !has('undo-intent', body.step)) refuse('no undo intent');
    if (body.type === 'undo-result' && has('undo-result', body.step)) refuse('a second undo');
    if (body.type === 'log') {
      const lines = bodies.filter((earlier) => earlier.type === 'log').length;
      if (body.line !== lines + 1) refuse(`log line ${lines} was the last`);
    }
  }
}
