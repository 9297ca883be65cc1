import type { BodyOf, Envelope, JournalEvent } from '@hypha/protocol';
import { JOURNAL_LIMITS } from './journal-limits.ts';
import type { RunEntry } from './run-entry.ts';
import type { BuiltEvent } from './run-head.ts';

interface RememberedRun {
  entry: RunEntry;
  readonly envelope: Envelope;
  /** Name → version of its secrets; undefined when only the store can tell. */
  readonly given: Readonly<Record<string, string>> | undefined;
  readonly events: JournalEvent[];
  receipt: Envelope | undefined;
  /** Of its envelope and events as text. */
  bytes: number;
}

/**
 * Runs that this process took in, whole, newest use last: whoever works on a run or follows it asks nothing of
 * the store. Holds only what is durable. A run that grows large, or was not used for long, is forgotten here and
 * read from the store again.
 */
export class RunMemory {
  readonly #runs = new Map<string, RememberedRun>();
  // digest → run
  readonly #digests = new Map<string, string>();
  #bytes = 0;

  /** A run that was just accepted. */
  add(
    entry: RunEntry,
    envelope: Envelope,
    arrived: {
      readonly events: readonly BuiltEvent[];
      readonly given: Readonly<Record<string, string>> | undefined;
      readonly receipt: Envelope | undefined;
    },
  ): void {
    const { run } = entry;
    const { given, receipt } = arrived;
    const bytes = envelope.payload.length;
    this.#runs.set(run, { entry, envelope, given, events: [], receipt, bytes });
    this.#digests.set(entry.digest, run);
    this.#bytes += bytes;
    this.append(entry, arrived.events, receipt);
  }

  append(entry: RunEntry, events: readonly BuiltEvent[], receipt: Envelope | undefined): void {
    const known = this.#runs.get(entry.run);
    if (known === undefined) return;
    const bytes = events.reduce((sum, { text }) => sum + text.length, 0);
    known.entry = entry;
    known.events.push(...events.map(({ event }) => event));
    known.receipt = receipt ?? known.receipt;
    known.bytes += bytes;
    this.#bytes += bytes;
    this.#runs.delete(entry.run);
    this.#runs.set(entry.run, known);
    if (known.bytes > JOURNAL_LIMITS.rememberedRunBytesMax) this.forget([entry.run]);
    this.#makeRoom();
  }

  /** Its row has changed, its events have not. */
  update(entry: RunEntry): void {
    const known = this.#runs.get(entry.run);
    if (known !== undefined) known.entry = entry;
  }

  forget(runs: readonly string[]): void {
    for (const run of runs) {
      const known = this.#runs.get(run);
      if (known === undefined) continue;
      this.#runs.delete(run);
      this.#digests.delete(known.entry.digest);
      this.#bytes -= known.bytes;
    }
  }

  findRun(run: string): RunEntry | undefined {
    return this.#runs.get(run)?.entry;
  }

  findByDigest(digest: string): RunEntry | undefined {
    const run = this.#digests.get(digest);
    return run === undefined ? undefined : this.findRun(run);
  }

  findEnvelope(run: string): Envelope | undefined {
    return this.#runs.get(run)?.envelope;
  }

  findGiven(run: string): Readonly<Record<string, string>> | undefined {
    return this.#runs.get(run)?.given;
  }

  /** All of them, in order. */
  findEvents(run: string): readonly JournalEvent[] | undefined {
    return this.#runs.get(run)?.events;
  }

  findCommitted(run: string): BodyOf<'committed'> | undefined {
    const bodies = this.findEvents(run)?.map(({ body }) => body) ?? [];
    return bodies.find((body) => body.type === 'committed');
  }

  findReceipt(run: string): Envelope | undefined {
    return this.#runs.get(run)?.receipt;
  }

  #makeRoom(): void {
    for (const run of this.#runs.keys()) {
      if (this.#bytes <= JOURNAL_LIMITS.rememberedBytesMax) return;
      this.forget([run]);
    }
  }
}
