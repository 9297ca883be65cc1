import type { RunJournal } from '@hypha/engine';
import {
  eventHash,
  GENESIS_HASH,
  HyphaError,
  type JournalBody,
  type JournalEvent,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';

/** A run's journal in memory, hash-chained like a node's. Outlives the epochs of the engine that write it. */
export class LocalJournal {
  readonly run: string;
  readonly events: JournalEvent[] = [];
  readonly #nowMs: () => number;
  readonly #onEvent: (event: JournalEvent) => void;
  #epoch = 0;

  constructor(run: string, nowMs: () => number, onEvent: (event: JournalEvent) => void) {
    this.run = run;
    this.#nowMs = nowMs;
    this.#onEvent = onEvent;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** For the next epoch; those before it may not write any more. */
  open(): RunJournal {
    this.#epoch += 1;
    const epoch = this.#epoch;
    return {
      recorded: [...this.events],
      append: async (bodies) => {
        if (epoch !== this.#epoch) throw new HyphaError('E_STALE_EPOCH', `epoch ${epoch} is over`);
        for (const body of bodies) this.#add(body);
      },
      readKept: (target) =>
        Promise.reject(
          new HyphaError('E_NOT_FOUND', `a simulation keeps no failed run: ${target}`, {
            hint: 'undo it on its node: hypha run undo RUN',
          }),
        ),
    };
  }

  /** What the supervisor would write, once the engine is done. */
  finish(body: JournalBody): void {
    this.#add(body);
  }

  #add(body: JournalBody): void {
    const unsigned = {
      run: this.run,
      seq: this.events.length + 1,
      epoch: this.#epoch,
      at: this.#nowMs(),
      prev: this.events.at(-1)?.hash ?? GENESIS_HASH,
      body: structuredClone(body),
    };
    const event = { ...unsigned, hash: eventHash(nodeVerifier, unsigned) };
    this.events.push(event);
    this.#onEvent(event);
  }
}
