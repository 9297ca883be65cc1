import { type ErrorCode, isHyphaError, type JournalBody } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { jsonBytes } from './json-bounds.ts';
import { OVER } from './over.ts';
import type { Clock, RunJournal } from './ports.ts';
import type { RunRecord } from './run-record.ts';
import { EngineHalt, RunFailure } from './saga-error.ts';

/** The journal's answers that end the run, not the runner. */
const REFUSALS: readonly ErrorCode[] = [
  'E_CANCELLED',
  'E_OUTPUT',
  'E_SIZE',
  'E_CONFLICT',
  // What the authority took back while the run went on.
  'E_KEY_REVOKED',
  'E_SCOPE',
  'E_SIG_THRESHOLD',
  'E_AUDIENCE',
];

interface Entry {
  readonly body: JournalBody;
  readonly bytes: number;
  /** Part of the record from the moment it is durable; what was buffered is part of it already. */
  readonly isNew: boolean;
}

/**
 * Writes a run's journal, one append at a time. What is written meanwhile gathers and goes with the next one, so
 * that steps that run at once share a commit.
 *
 * W1  Order is kept, so nothing durable ever refers to something that is not.
 * W2  `append` resolves when its events are durable: no effect before its own intent.
 * W3  Once the journal refused to go on, nothing is written but the outcomes of durable intents, until the run
 *     turns back.
 */
export class JournalWriter {
  readonly #journal: Pick<RunJournal, 'append'>;
  readonly #record: RunRecord;
  readonly #clock: Clock;
  #waiting: Entry[] = [];
  #waitingBytes = 0;
  /** The append that takes what gathers now. */
  #next: Promise<void> | undefined;
  #inFlight: Promise<void> = Promise.resolve();
  #refusal: RunFailure | undefined;
  #halt: EngineHalt | undefined;
  // step of every durable intent
  readonly #durableIntents: Set<number>;
  readonly #broken = new AbortController();
  /** Aborted by `close`: what waits is then not written. */
  readonly #closed = new AbortController();
  #isTiming = false;

  constructor(journal: Pick<RunJournal, 'append'>, record: RunRecord, clock: Clock) {
    this.#journal = journal;
    this.#record = record;
    this.#clock = clock;
    this.#durableIntents = new Set(record.intents.keys());
  }

  /**
   * Rides in the next append, or in one of its own after a while. If we die before it, the run resumes without
   * this event. Part of the record at once.
   */
  async buffer(...bodies: readonly JournalBody[]): Promise<void> {
    for (const body of bodies) {
      this.#record.add(body);
      this.#gather(body, false);
    }
    if (this.#isFull) await this.flush();
    else this.#writeSoon();
  }

  /** As `buffer`, in an append that starts now: for what must come first but has no effect behind it. */
  appendSoon(body: JournalBody): void {
    this.#record.add(body);
    this.#gather(body, false);
    this.#commit().catch(() => undefined);
  }

  /**
   * Durable when it resolves, with everything that waited. Throws `RunFailure` when the journal refuses
   * to go on with the run and `EngineHalt` when it is lost.
   */
  async append(...bodies: readonly JournalBody[]): Promise<void> {
    this.#assertGoing();
    for (const body of bodies) this.#gather(body, true);
    await this.#commit();
    this.#assertGoing();
  }

  /** Throws as `append` does, also for what was refused before. */
  async flush(): Promise<void> {
    await this.append();
  }

  /** Aborted when the run may not go on, or not here: its reason is what `append` throws. */
  get broken(): AbortSignal {
    return this.#broken.signal;
  }

  /**
   * The run is being undone: writes what waits, as far as the journal still takes it, and from then on what an undo
   * writes. Throws `EngineHalt`.
   */
  async turnBack(): Promise<void> {
    await this.flush().catch((error: unknown) => {
      if (!(error instanceof RunFailure)) throw error;
    });
    await this.#inFlight;
    this.#refusal = undefined;
  }

  /** Nothing is written any more. */
  close(): void {
    this.#closed.abort(OVER);
  }

  get #isFull(): boolean {
    const { bufferedBodiesMax, bufferedBytesMax } = ENGINE_LIMITS;
    return this.#waiting.length >= bufferedBodiesMax || this.#waitingBytes >= bufferedBytesMax;
  }

  #assertGoing(): void {
    if (this.#halt !== undefined) throw this.#halt;
    if (this.#refusal !== undefined) throw this.#refusal;
  }

  #gather(body: JournalBody, isNew: boolean): void {
    if (this.#refusal !== undefined && !this.#isStillWanted(body)) return;
    const entry = { body, bytes: jsonBytes(body), isNew };
    this.#waiting.push(entry);
    this.#waitingBytes += entry.bytes;
  }

  /** After a refusal only what became of effects still matters. */
  #isStillWanted(body: JournalBody): boolean {
    // Without its start the journal takes no end of a run but `rejected` and `cancelled`.
    if (body.type === 'started') return true;
    const isOutcome = body.type === 'step-result' || body.type === 'step-error';
    return isOutcome && this.#durableIntents.has(body.step);
  }

  #commit(): Promise<void> {
    this.#next ??= this.#sendNext(this.#inFlight);
    return this.#next;
  }

  async #sendNext(earlier: Promise<void>): Promise<void> {
    await earlier;
    this.#next = undefined;
    this.#assertGoing();
    const sent = this.#sendWaiting();
    // Whoever waits for the next one sees `#refusal` and `#halt`.
    this.#inFlight = sent.catch(() => undefined);
    await sent;
  }

  /** Everything that waits now, in appends of bounded size. */
  async #sendWaiting(): Promise<void> {
    const batch = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    for (let from = 0; from < batch.length; ) {
      const part = leadingPart(batch, from);
      await this.#send(part, batch.slice(from + part.length));
      from += part.length;
    }
  }

  async #send(part: readonly Entry[], rest: readonly Entry[]): Promise<void> {
    try {
      await this.#journal.append(part.map(({ body }) => body));
    } catch (error) {
      const refusal = REFUSALS.find((code) => isHyphaError(error, code));
      if (refusal === undefined || !isHyphaError(error)) {
        this.#halt = new EngineHalt(error);
        this.#broken.abort(this.#halt);
        throw this.#halt;
      }
      this.#refusal = new RunFailure(error);
      this.#broken.abort(this.#refusal);
      // All or none: what led up to the refused event was lost with it.
      const left = [...part, ...rest, ...this.#waiting];
      this.#waiting = left.filter(({ body }) => this.#isStillWanted(body));
      this.#waitingBytes = this.#waiting.reduce((sum, { bytes }) => sum + bytes, 0);
      throw this.#refusal;
    }
    for (const { body, isNew } of part) {
      if (isNew) this.#record.add(body);
      if (body.type === 'step-intent') this.#durableIntents.add(body.step);
    }
  }

  /** Whoever watches a run sees what became of a step also while nothing else is written. */
  #writeSoon(): void {
    if (this.#isTiming) return;
    this.#isTiming = true;
    const write = () => {
      this.#isTiming = false;
      if (this.#waiting.length > 0) this.#commit().catch(() => undefined);
    };
    this.#clock
      .sleep(ENGINE_LIMITS.bufferedMsMax, this.#closed.signal)
      .then(write, () => undefined);
  }
}

/** At least one, and as many as one append may hold. */
function leadingPart(batch: readonly Entry[], from: number): readonly Entry[] {
  let bytes = 0;
  let to = from;
  for (; to < batch.length && to - from < ENGINE_LIMITS.bufferedBodiesMax; to++) {
    bytes += batch[to]?.bytes ?? 0;
    if (to > from && bytes > ENGINE_LIMITS.bufferedBytesMax) break;
  }
  return batch.slice(from, to);
}
