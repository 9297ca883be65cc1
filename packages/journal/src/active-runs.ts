import { isTerminal, type Verifier } from '@hypha/protocol';
import type { RunEntry } from './run-entry.ts';
import { RunHead } from './run-head.ts';
import type { RunReader } from './run-reader.ts';

/** A run that can be appended to. */
export interface ActiveRun {
  readonly entry: RunEntry;
  readonly head: RunHead;
}

/** Who claimed an epoch. */
export interface Owner {
  readonly runner: string;
  readonly epoch: number;
  readonly bootId: string;
}

/** The ends of runs that are not over, in memory; read from the store when they are not known. */
export class ActiveRuns {
  readonly #reader: RunReader;
  readonly #verifier: Verifier;
  readonly #active = new Map<string, ActiveRun>();
  // run → who claimed it: known here until the first append makes it durable
  readonly #owners = new Map<string, Owner>();

  /** @param reader of the store itself: what failed is read as it is there */
  constructor(reader: RunReader, verifier: Verifier) {
    this.#reader = reader;
    this.#verifier = verifier;
  }

  /** Throws `E_NOT_FOUND`, and `E_INTERNAL` when the stored events are no whole chain. */
  async load(run: string): Promise<ActiveRun> {
    const known = this.#active.get(run);
    if (known !== undefined) return known;
    const [entry, events] = await Promise.all([
      this.#reader.getRun(run),
      this.#reader.readAllEvents(run),
    ]);
    const owner = this.#owners.get(run);
    const isClaimed = owner !== undefined && owner.epoch === entry.epoch && entry.holder === null;
    return this.keep({
      entry: isClaimed ? claimedBy(entry, owner) : entry,
      head: RunHead.fromEvents(this.#verifier, run, events),
    });
  }

  /** As it is from now on. One that ended is not kept: nothing follows. */
  keep(active: ActiveRun): ActiveRun {
    const { run, state } = active.entry;
    if (isTerminal(state)) this.release(run);
    else this.#active.set(run, active);
    return active;
  }

  claim({ entry, head }: ActiveRun, owner: Owner): RunEntry {
    // Asked again by whom the store knows: that stays so.
    if (entry.holder === null) this.#owners.set(entry.run, owner);
    return this.keep({ entry: claimedBy(entry, owner), head }).entry;
  }

  /** Its owner is in the store from now on. */
  confirm(run: string): void {
    this.#owners.delete(run);
  }

  /** Whether it is owned by this one, and nothing but memory says so. */
  isOnlyClaimed(run: string, { runner, epoch }: Pick<Owner, 'runner' | 'epoch'>): boolean {
    const owner = this.#owners.get(run);
    return owner?.runner === runner && owner.epoch === epoch;
  }

  /** Nobody owns it, as in the store. */
  unclaim({ entry, head }: ActiveRun): RunEntry {
    this.#owners.delete(entry.run);
    return this.keep({ entry: { ...entry, holder: null }, head }).entry;
  }

  /** Its end may not be what the store holds. */
  forget(run: string): void {
    this.#active.delete(run);
  }

  /** Forgets its owner too. */
  release(run: string): void {
    this.forget(run);
    this.#owners.delete(run);
  }
}

/** It waits no longer once somebody owns it. */
function claimedBy(entry: RunEntry, { runner, bootId }: Owner): RunEntry {
  return { ...entry, holder: runner, bootId, wakeAt: null };
}
