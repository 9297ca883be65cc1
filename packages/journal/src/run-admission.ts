import {
  type Envelope,
  HyphaError,
  type ResourceLimits,
  type ScriptPayload,
  type Verifier,
} from '@hypha/protocol';
import { isStoreConflict, type Store, type Write } from '@hypha/store';
import { z } from 'zod';
import { AppendPlan, type PlanDeps } from './append-plan.ts';
import { JOURNAL_LIMITS } from './journal-limits.ts';
import type { JournalTables } from './journal-schema.ts';
import type { KeyedLock } from './keyed-lock.ts';
import type { MarkBook } from './mark-book.ts';
import type { ReplayHorizon } from './replay-horizon.ts';
import type { Reservation, ReservationBook } from './reservation-book.ts';
import { type RunEntry, type RunSource, runEntryOf } from './run-entry.ts';
import { type BuiltEvent, RunHead } from './run-head.ts';
import type { RunReader } from './run-reader.ts';
import { replayValues, runRow, takesGeneration } from './run-row.ts';
import { cancelledBody } from './run-standing.ts';
import type { GivenSecret, SecretBook } from './secret-book.ts';
import type { Tombstone, TombstoneBook } from './tombstone-book.ts';

/** What the insert of a run returns. */
const Positions = z.tuple([z.object({ position: z.int() })]);

/** Verified work, as the one admission path of the supervisor hands it over. */
export interface Admission {
  readonly run: string;
  readonly digest: string;
  readonly envelope: Envelope;
  readonly payload: ScriptPayload;
  /** Who signed. */
  readonly keyids: readonly string[];
  readonly authoritySeq: number;
  readonly source: RunSource;
  /** All this node has to give. */
  readonly capacity: ResourceLimits;
  /** Default: none. */
  readonly secrets?: readonly GivenSecret[];
}

export interface Admitted {
  readonly entry: RunEntry;
  /** True when this digest was accepted before: nothing was written. */
  readonly existing: boolean;
}

/** What a run has when it is accepted. */
interface Arrival {
  readonly head: RunHead;
  readonly events: readonly BuiltEvent[];
  /** Of one that was cancelled before it came. */
  readonly receipt?: Envelope | undefined;
}

interface AdmissionDeps {
  readonly store: Store<JournalTables>;
  readonly reader: RunReader;
  /** For the receipt of what was cancelled before it came. */
  readonly plan: PlanDeps;
  readonly tombstones: TombstoneBook;
  /** By digest: a cancel and its target that come at once take turns. */
  readonly arrivals: KeyedLock;
  readonly reservations: ReservationBook;
  readonly marks: MarkBook;
  readonly secrets: SecretBook;
  readonly verifier: Verifier;
  readonly node: string;
  readonly horizon: ReplayHorizon;
  readonly nowMs: () => number;
  readonly unfinished: () => number;
  /** Told once it is durable. */
  readonly onAdmitted: (entry: RunEntry, admission: Admission, arrival: Arrival) => void;
}

/**
 * Takes work in with one durable write: the run, its first event, what may not come back, the generation
 * mark, the reservation and its secrets, sealed (G2, G9). Checks what only the node's own memory can tell: replay, generation and
 * capacity. Each check is repeated by the write itself, so that two at once cannot both win.
 */
export class RunAdmission {
  readonly #deps: AdmissionDeps;
  // digest → its admission, while that is under way
  readonly #underWay = new Map<string, Promise<Admitted>>();

  constructor(deps: AdmissionDeps) {
    this.#deps = deps;
  }

  /** Throws `E_EXPIRED`, `E_REPLAY`, `E_SUPERSEDED`, `E_CONFLICT`, `E_CAPACITY`, `E_SECRET`, `E_RATE`. */
  async admit(admission: Admission): Promise<Admitted> {
    const { digest } = admission;
    const first = this.#underWay.get(digest);
    if (first !== undefined) return { ...(await first), existing: true };
    const admitted = this.#deps.arrivals.hold(digest, () => this.#admitOnce(admission));
    this.#underWay.set(digest, admitted);
    try {
      return await admitted;
    } finally {
      this.#underWay.delete(digest);
    }
  }

  async #admitOnce(admission: Admission): Promise<Admitted> {
    for (let attempt = 1; ; attempt++) {
      // What memory lets through, the write itself judges: only what it refuses is looked up.
      if (attempt > 1 || !this.#seemsNew(admission)) {
        const known = await this.#check(admission);
        if (known !== undefined) return { entry: known, existing: true };
      }
      const { payload, digest, keyids } = admission;
      const { realm } = payload;
      const tombstone = this.#deps.tombstones.find({ digest, realm, keyids });
      const { receipts } = this.#deps.plan;
      // Whoever fails at the same time forgets it for all.
      while (tombstone !== undefined && !receipts.isKnown) await receipts.refresh();
      const reservation = tombstone === undefined ? this.#reserve(admission) : null;
      try {
        if (tombstone !== undefined) {
          return { entry: await this.#writeCancelled(admission, tombstone), existing: false };
        }
        return { entry: await this.#write(admission, reservation), existing: false };
      } catch (error) {
        if (reservation !== null) this.#deps.reservations.drop(reservation);
        if (tombstone !== undefined) receipts.forget();
        if (!isStoreConflict(error) || attempt === JOURNAL_LIMITS.attemptsMax) throw error;
      }
    }
  }

  /** The run of the same digest; undefined when the work is new and may be taken in. */
  async #check({ payload, digest, keyids }: Admission): Promise<RunEntry | undefined> {
    const values = replayValues(payload, keyids);
    const used = await this.#deps.store.db
      .selectFrom('replay')
      .select(['value', 'digest'])
      .where('value', 'in', values)
      .execute();
    // Forgotten here once it has expired; what asks after that is refused before it comes here.
    if (used.some((row) => row.digest === digest)) return this.#deps.reader.findByDigest(digest);
    this.#demandAdmissible(payload, used);
    return undefined;
  }

  /** By what is in memory. The write fails when an id, a nonce or the digest was used. */
  #seemsNew({ payload, digest }: Admission): boolean {
    if (this.#deps.reader.isRemembered(digest)) return false;
    try {
      this.#demandAdmissible(payload, []);
      return true;
    } catch {
      return false;
    }
  }

  #demandAdmissible(payload: ScriptPayload, used: readonly { readonly value: string }[]): void {
    if (this.#deps.unfinished() >= JOURNAL_LIMITS.unfinishedRunsMax) {
      throw new HyphaError('E_RATE', `cannot accept ${payload.id}: too many runs are unfinished`);
    }
    // Whatever this journal cannot tell may have run.
    this.#deps.horizon.check(payload);
    const [first] = used;
    if (first !== undefined) {
      const path = first.value.startsWith('id ') ? 'id' : 'nonce';
      throw new HyphaError('E_REPLAY', `${path} of ${payload.id} was used by other work`, {
        where: { path },
      });
    }
    if (takesGeneration(payload)) demandNewer(payload, this.#deps.marks.find(payload) ?? 0);
  }

  /** Only an apply takes more than its deployment holds already. */
  #reserve({ run, payload, capacity }: Admission): Reservation | null {
    if (payload.mode !== 'apply') return null;
    const { realm, deployment } = payload;
    const limits = payload.limits.resources;
    const reservation = { realm, deployment, source: run, limits };
    this.#deps.reservations.reserve(reservation, capacity);
    return reservation;
  }

  async #write(admission: Admission, reservation: Reservation | null): Promise<RunEntry> {
    const { queries } = this.#deps.plan;
    const { run, payload } = admission;
    const head = new RunHead(this.#deps.verifier, run);
    const accepted = this.#accept(admission, head);
    const row = runRow(admission, head);
    const writes = [...this.#planArrival(admission, row), this.#planEvent(accepted)];
    if (reservation !== null) {
      const { limits, ...of } = reservation;
      writes.push({ query: queries.putReservation.with({ ...of, ...limits }) });
    }
    writes.push(...(await this.#deps.secrets.planGive(run, payload, admission.secrets ?? [])));
    return await this.#settle(admission, row, { writes, head, events: [accepted] });
  }

  /** It came after its cancel: it is accepted and ends in one write, as if it had waited here for it. */
  async #writeCancelled(admission: Admission, { requestedAt }: Tombstone): Promise<RunEntry> {
    const head = new RunHead(this.#deps.verifier, admission.run);
    const accepted = this.#accept(admission, head);
    const entry = runEntryOf({ ...runRow(admission, head, requestedAt), position: 0 });
    const plan = new AppendPlan(this.#deps.plan, { entry, head });
    const finished = head.append(cancelledBody(admission.run), this.#stamp());
    plan.add(finished);
    const row = runRow(admission, head, requestedAt);
    const arrival = this.#planArrival(admission, row);
    const settled = await this.#settle(admission, row, {
      writes: [...arrival, this.#planEvent(accepted), ...plan.writes],
      head,
      events: [accepted, finished],
      receipt: plan.receipt,
    });
    plan.apply();
    return settled;
  }

  #accept(admission: Admission, head: RunHead): BuiltEvent {
    return head.append(this.#acceptedBody(admission), this.#stamp());
  }

  #stamp() {
    return { epoch: 0, at: this.#deps.nowMs() };
  }

  #planEvent({ event, text }: BuiltEvent): Write {
    const { run, seq } = event;
    return { query: this.#deps.plan.queries.insertEvent.with({ run, seq, body: text }) };
  }

  /** First the run: its insert says its place. */
  #planArrival(admission: Admission, row: ReturnType<typeof runRow>): Write[] {
    const { queries } = this.#deps.plan;
    const { payload, digest, keyids } = admission;
    const keepUntilSeconds = payload.exp + JOURNAL_LIMITS.replayGraceSeconds;
    const values = replayValues(payload, keyids);
    return [
      { query: queries.insertRun.with(row) },
      ...(takesGeneration(payload) ? [this.#deps.marks.planRaise(payload, digest)] : []),
      ...values.map((value) => ({
        query: queries.insertReplay.with({ value, digest, keepUntilSeconds }),
      })),
    ];
  }

  async #settle(
    admission: Admission,
    row: ReturnType<typeof runRow>,
    arrival: Arrival & { readonly writes: readonly Write[] },
  ): Promise<RunEntry> {
    const { payload } = admission;
    const [inserted] = await this.#deps.store.write(arrival.writes);
    if (takesGeneration(payload)) this.#deps.marks.raise(payload);
    const [{ position }] = Positions.parse(inserted?.rows);
    const entry = runEntryOf({ ...row, position });
    this.#deps.onAdmitted(entry, admission, arrival);
    return entry;
  }

  #acceptedBody({ payload, digest, keyids, authoritySeq }: Admission) {
    const { realm, deployment, generation, mode } = payload;
    const { node } = this.#deps;
    return {
      type: 'accepted' as const,
      envelopeDigest: digest,
      node,
      realm,
      deployment,
      generation,
      mode,
      keyids: [...keyids],
      authoritySeq,
    };
  }
}

function demandNewer({ realm, deployment, generation }: ScriptPayload, admitted: number): void {
  if (generation > admitted) return;
  const code = generation === admitted ? 'E_CONFLICT' : 'E_SUPERSEDED';
  throw new HyphaError(
    code,
    `generation ${generation} of ${realm}/${deployment} comes after ${admitted} was admitted`,
    {
      where: { path: 'generation' },
      hint: `sign again with a generation above ${admitted}`,
      details: { generation, admitted },
    },
  );
}
