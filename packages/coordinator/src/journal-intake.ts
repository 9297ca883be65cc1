import {
  eventHash,
  foldRunEvent,
  isTerminal,
  type JournalEvent,
  type RunFold,
  type Verifier,
} from '@hypha/protocol';

/** A run's journal as far as it is stored. */
export interface JournalState {
  readonly run: string;
  readonly node: string;
  readonly digest: string;
  readonly lastSeq: number;
  /** Hash of the event at `lastSeq`. */
  readonly head: string;
  readonly fold: RunFold;
}

export interface JournalIntake {
  /** To be stored, in order; each follows the one before it. */
  readonly events: readonly JournalEvent[];
  readonly fold: RunFold;
  readonly lastSeq: number;
  readonly head: string;
  /** Seq that has to come next, when events are missing in between. */
  readonly wanted?: number;
  /** What cannot be true together with what is stored. Nothing at or after it is taken. */
  readonly contradiction?: string;
}

/**
 * How far events of a node continue what is stored of its run's journal. Pure. Events that are stored
 * already are passed over when they are the same.
 *
 * @param storedHashes seq → hash, of those of `events` that are stored
 */
export function continueJournal(
  verifier: Verifier,
  state: JournalState,
  events: readonly JournalEvent[],
  storedHashes: ReadonlyMap<number, string>,
): JournalIntake {
  const taken: JournalEvent[] = [];
  let { fold, lastSeq, head } = state;
  const stop = (why: Pick<JournalIntake, 'wanted' | 'contradiction'>): JournalIntake => ({
    events: taken,
    fold,
    lastSeq,
    head,
    ...why,
  });
  for (const event of events) {
    if (event.seq <= state.lastSeq) {
      if (event.run === state.run && storedHashes.get(event.seq) === event.hash) continue;
      return stop({ contradiction: `event ${event.seq} is not the one stored before` });
    }
    if (event.seq > lastSeq + 1) return stop({ wanted: lastSeq + 1 });
    const reason = contradictionOf(verifier, { ...state, fold, lastSeq, head }, event);
    if (reason !== undefined) return stop({ contradiction: `event ${event.seq} ${reason}` });
    taken.push(event);
    fold = foldRunEvent(fold, event);
    ({ seq: lastSeq, hash: head } = event);
  }
  return stop({});
}

function contradictionOf(
  verifier: Verifier,
  state: JournalState,
  event: JournalEvent,
): string | undefined {
  if (event.run !== state.run) return `is of run ${event.run}`;
  if (event.seq !== state.lastSeq + 1) return 'comes twice';
  if (event.prev !== state.head) return 'does not follow the event before it';
  if (eventHash(verifier, event) !== event.hash) return 'does not hash to its hash';
  if (isTerminal(state.fold.state)) return 'comes after the run had finished';
  const { body } = event;
  if ((state.lastSeq === 0) !== (body.type === 'accepted')) return `is ${body.type}`;
  if (body.type !== 'accepted') return undefined;
  if (body.envelopeDigest !== state.digest) return `is of envelope ${body.envelopeDigest}`;
  if (body.node !== state.node) return `is of ${body.node}`;
  return undefined;
}
