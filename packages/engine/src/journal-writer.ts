import { type ErrorCode, isHyphaError, type JournalBody } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { jsonBytes } from './json-bounds.ts';
import type { RunJournal } from './ports.ts';
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

/**
 * Writes a run's journal. What has no effect behind it (outcomes, log lines, reads) may wait in memory and
 * ride in the next append; order is kept, so nothing durable ever refers to something that is not.
 */
export class JournalWriter {
  readonly #journal: RunJournal;
  readonly #record: RunRecord;
  #waiting: JournalBody[] = [];
  #waitingBytes = 0;
  #earlier: Promise<void> = Promise.resolve();
  // step of every durable intent
  readonly #durableIntents: Set<number>;

  constructor(journal: RunJournal, record: RunRecord) {
    this.#journal = journal;
    this.#record = record;
    this.#durableIntents = new Set(record.intents.keys());
  }

  /** Rides in the next append. If we die before it, the run resumes without this event. */
  async buffer(...bodies: readonly JournalBody[]): Promise<void> {
    for (const body of bodies) this.#record.add(body);
    this.#waiting.push(...bodies);
    this.#waitingBytes += jsonBytes(bodies);
    const { bufferedBodiesMax, bufferedBytesMax } = ENGINE_LIMITS;
    const isFull =
      this.#waiting.length >= bufferedBodiesMax || this.#waitingBytes >= bufferedBytesMax;
    if (isFull) await this.flush();
  }

  /**
   * Starts an append that the next one waits for: for what must come first but need not be durable
   * before anything that has no effect.
   */
  appendSoon(body: JournalBody): void {
    this.#record.add(body);
    const sent = this.#send([body]);
    sent.catch(() => undefined);
    this.#earlier = sent;
  }

  /**
   * Durable when it resolves, with everything that waited. Throws `RunFailure` when the journal refuses
   * to go on with the run and `EngineHalt` when it is lost.
   */
  async append(...bodies: readonly JournalBody[]): Promise<void> {
    const earlier = this.#earlier;
    this.#earlier = Promise.resolve();
    await earlier;
    const batch = [...this.#waiting, ...bodies];
    if (batch.length === 0) return;
    this.#waiting = [];
    this.#waitingBytes = 0;
    await this.#send(batch);
    for (const body of bodies) this.#record.add(body);
  }

  async flush(): Promise<void> {
    await this.append();
  }

  async #send(batch: readonly JournalBody[]): Promise<void> {
    try {
      await this.#journal.append(batch);
    } catch (error) {
      const refusal = REFUSALS.find((code) => isHyphaError(error, code));
      if (refusal === undefined || !isHyphaError(error)) throw new EngineHalt(error);
      // All or none: what led up to the refused event was lost with it, and only outcomes still matter.
      this.#waiting = batch.filter(
        (body) =>
          (body.type === 'step-result' || body.type === 'step-error') &&
          this.#durableIntents.has(body.step),
      );
      throw new RunFailure(error);
    }
    for (const body of batch) if (body.type === 'step-intent') this.#durableIntents.add(body.step);
  }
}
