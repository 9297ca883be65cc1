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
  /** Called before events are durable. */
  onAppend: ((bodies: readonly JournalBody[]) => Promise<void>) | undefined;
  /** A cancel of the run was accepted: it begins nothing more. */
  isCancelled = false;
  readonly #clock: Clock;
  // type → how many events there are of it, and on which steps
  readonly #steps = new Map<JournalBody['type'], { count: number; steps: Set<number> }>();
  /** Steps that were begun and have no outcome. */
  readonly #open = new Set<number>();

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
    this.#indexAll();
    const epoch = this.epoch;
    return {
      recorded: [...this.events],
      append: async (bodies) => {
        const label = bodies.map((body) => body.type).join('+');
        await fuse.pass(`before append ${label}`);
        await this.onAppend?.(bodies);
        if (epoch !== this.epoch) throw new HyphaError('E_STALE_EPOCH', `epoch ${epoch} is over`);
        const refused = bodies.find((body) => body.type === this.refuseNext?.type);
        if (refused !== undefined && this.refuseNext !== undefined) {
          const { error } = this.refuseNext;
          this.refuseNext = undefined;
          throw error;
        }
        if (this.isCancelled && bodies.some((body) => isBeginning(body))) {
          throw new HyphaError('E_CANCELLED', `${this.run} was cancelled`);
        }
        const before = this.events.length;
        try {
          for (const body of bodies) this.#append(body, epoch);
        } catch (error) {
          this.events.length = before;
          this.#indexAll();
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
    this.#index(body);
    this.events.push({ ...unsigned, hash: eventHash(nodeVerifier, unsigned) });
  }

  #assertMayFollow(body: JournalBody): void {
    const refuse = (reason: string): never => {
      throw new HyphaError('E_CONFLICT', `${body.type} may not follow: ${reason}`);
    };
    const has = (type: JournalBody['type']) => (this.#steps.get(type)?.count ?? 0) > 0;
    const isOn = (type: JournalBody['type'], step: number) =>
      this.#steps.get(type)?.steps.has(step) === true;
    if (has('finished')) refuse('the run is finished');
    if (has('committed') && body.type !== 'finished') refuse('the run is committed');
    const isForward = ['step-intent', 'step-result', 'step-error', 'log', 'committed'];
    if (isForward.includes(body.type) && has('undo-intent')) refuse('the run is being undone');
    if (body.type === 'step-intent' && isOn('step-intent', body.step)) refuse('a second intent');
    if (body.type === 'step-result' || body.type === 'step-error') {
      if (!isOn('step-intent', body.step)) refuse('no intent');
      if (!this.#open.has(body.step)) refuse('a second outcome');
    }
    if (body.type === 'committed' && this.#open.size > 0) refuse('a step has no outcome');
    if (body.type === 'undo-intent' && !isOn('step-intent', body.step)) refuse('no intent');
    if (body.type === 'undo-result' && !isOn('undo-intent', body.step)) refuse('no undo intent');
    if (body.type === 'undo-result' && isOn('undo-result', body.step)) refuse('a second undo');
    if (body.type === 'log') {
      const lines = this.#steps.get('log')?.count ?? 0;
      if (body.line !== lines + 1) refuse(`log line ${lines} was the last`);
    }
  }

  #index(body: JournalBody): void {
    const known = this.#steps.get(body.type) ?? { count: 0, steps: new Set() };
    known.count += 1;
    this.#steps.set(body.type, known);
    if (!('step' in body)) return;
    known.steps.add(body.step);
    if (body.type === 'step-intent') this.#open.add(body.step);
    if (body.type === 'step-result' || body.type === 'step-error') this.#open.delete(body.step);
  }

  #indexAll(): void {
    this.#steps.clear();
    this.#open.clear();
    for (const { body } of this.events) this.#index(body);
  }
}

function isBeginning({ type }: JournalBody): boolean {
  return type === 'step-intent' || type === 'committed';
}
