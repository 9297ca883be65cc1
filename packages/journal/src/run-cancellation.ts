import { assertMayCancel, isTerminal } from '@hypha/protocol';
import type { KeyedLock } from './keyed-lock.ts';
import type { RunEntry } from './run-entry.ts';
import type { RunReader } from './run-reader.ts';
import { demandCancellable, isCancelled } from './run-standing.ts';
import type { RunWriter } from './run-writer.ts';
import type { TombstoneBook } from './tombstone-book.ts';

/** A verified cancel, as the supervisor hands it over. */
export interface Cancellation {
  /** Of the cancel's envelope. */
  readonly digest: string;
  /** Of the script envelope it ends. */
  readonly target: string;
  readonly realm: string;
  /** Who signed the cancel. */
  readonly keyids: readonly string[];
  /** They may cancel what others signed, here and in this realm. */
  readonly mayCancelAny: boolean;
  /** Epoch milliseconds. */
  readonly receivedAtMs: number;
  /**
   * Until when it is kept while its target is unknown, epoch seconds: at least the longest lifetime after the
   * target was signed. A target that is valid still later is refused once this was forgotten.
   */
  readonly forgetAtSeconds: number;
}

export interface Cancelled {
  /** The target's run on this node as it is now; none while the target is not here. */
  readonly runs: readonly RunEntry[];
  /** True when it was cancelled before: nothing was written. */
  readonly existing: boolean;
}

interface CancellationDeps {
  readonly reader: RunReader;
  readonly writer: RunWriter;
  readonly tombstones: TombstoneBook;
  /** By digest: a cancel and its target that come at once take turns. */
  readonly arrivals: KeyedLock;
}

/** Cancels what is here, and remembers the cancel of what is not here yet (G6). */
export class RunCancellation {
  readonly #deps: CancellationDeps;

  constructor(deps: CancellationDeps) {
    this.#deps = deps;
  }

  /**
   * Durable when it resolves. Throws `E_SCOPE` when the signers may not cancel this target, `E_TOO_LATE` when
   * it is committed or over, `E_RATE` when too many cancels wait for their target.
   */
  async cancel(cancellation: Cancellation): Promise<Cancelled> {
    const { target } = cancellation;
    return await this.#deps.arrivals.hold(target, async () => {
      const known = await this.#deps.reader.findByDigest(target);
      if (known !== undefined) return await this.#cancelRun(known, cancellation);
      const { realm, keyids, mayCancelAny, receivedAtMs, forgetAtSeconds } = cancellation;
      const requested = { requestedAt: receivedAtMs, forgetAtSeconds };
      const tombstone = { target, realm, keyids, mayCancelAny, ...requested };
      return { runs: [], existing: !(await this.#deps.tombstones.put(tombstone)) };
    });
  }

  /** What `cancel` answers when it has nothing to write; undefined when it has. Throws `E_SCOPE`. */
  async find({ digest, target, ...signed }: Cancellation): Promise<Cancelled | undefined> {
    const { realm, keyids, mayCancelAny } = signed;
    const known = await this.#deps.reader.findByDigest(target);
    if (known !== undefined) {
      assertMayCancel({ payload: { id: digest, realm }, keyids, mayCancelAny }, known);
      return isCancelled(known) ? { runs: [known], existing: true } : undefined;
    }
    const tombstone = this.#deps.tombstones.find({ digest: target, realm, keyids });
    return tombstone === undefined ? undefined : { runs: [], existing: true };
  }

  async #cancelRun(known: RunEntry, cancellation: Cancellation): Promise<Cancelled> {
    const { digest, realm, keyids, mayCancelAny, receivedAtMs } = cancellation;
    assertMayCancel({ payload: { id: digest, realm }, keyids, mayCancelAny }, known);
    // What is over stays as it is: no need to read its journal.
    if (isTerminal(known.state)) {
      if (!isCancelled(known)) demandCancellable(known);
      return { runs: [known], existing: true };
    }
    const { entry, existing } = await this.#deps.writer.cancel(known.run, receivedAtMs);
    return { runs: [entry], existing };
  }
}
