import type { Backlog, Journal } from '@hypha/journal';
import {
  HyphaError,
  type JournalEvent,
  type OutboxAnswer,
  type OutboxItem,
  type OutboxResult,
} from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import { LIMITS } from './supervisor-limits.ts';

/** One item, and what its confirmation means. */
interface Parcel {
  readonly item: OutboxItem;
  readonly run: string;
  /** Events the coordinator has once it says ok; the receipt counts as one more. */
  readonly told: number;
}

interface EventDeliveryDeps {
  readonly journal: Journal;
  readonly send: (items: OutboxItem[], signal: AbortSignal) => Promise<OutboxAnswer>;
  readonly log: Logger;
}

/**
 * Brings runs, their events and their receipts to the coordinator, in order for each run. Answers to inbox
 * messages ride along; those may be lost, for then the message comes again.
 */
export class EventDelivery {
  readonly #deps: EventDeliveryDeps;
  #acks: OutboxItem[] = [];
  // Runs whose envelope the coordinator asked for
  readonly #unknown = new Set<string>();

  constructor(deps: EventDeliveryDeps) {
    this.#deps = deps;
  }

  /** Beyond the bound the oldest is dropped. */
  acknowledge(item: OutboxItem): void {
    this.#acks.push(item);
    if (this.#acks.length > LIMITS.acksMax) this.#acks.shift();
  }

  /** Sends one batch. Returns whether more is left. */
  async deliver(signal: AbortSignal): Promise<boolean> {
    const acks = this.#acks.splice(0, LIMITS.batchItemsMax / 2);
    try {
      const backlog = await this.#deps.journal.cursors.listBacklog(LIMITS.runsPerBatch);
      const parcels = await this.#pack(backlog);
      const items = [...acks, ...parcels.map(({ item }) => item)];
      if (items.length === 0) return false;
      const { results } = await this.#deps.send(items, signal);
      const isTaken = await this.#confirm(parcels, results.slice(acks.length));
      return this.#acks.length > 0 || !isTaken || isMoreLeft(backlog, parcels);
    } catch (error) {
      this.#acks.unshift(...acks);
      throw error;
    }
  }

  async #pack(backlog: readonly Backlog[]): Promise<Parcel[]> {
    const parcels: Parcel[] = [];
    let bytes = 0;
    for (const run of backlog) {
      for (const parcel of await this.#packRun(run)) {
        bytes += bytesOf(parcel.item);
        const isFull = bytes > LIMITS.batchBytesMax || parcels.length >= LIMITS.batchItemsMax;
        if (isFull && parcels.length > 0) return parcels;
        parcels.push(parcel);
      }
    }
    return parcels;
  }

  async #packRun({ run, source, told, seq, ended }: Backlog): Promise<Parcel[]> {
    const { runs } = this.#deps.journal;
    const parcels: Parcel[] = [];
    if ((told === 0 && source === 'http') || this.#unknown.has(run)) {
      const envelope = await runs.readEnvelope(run);
      parcels.push({ item: { type: 'run', run, envelope }, run, told });
    }
    let last = told;
    const events = await runs.listEvents(run, { after: told, limit: LIMITS.eventsPerItem });
    for (const slice of slicesOf(events)) {
      last += slice.length;
      parcels.push({ item: { type: 'events', run, events: slice }, run, told: last });
    }
    const receipt = ended && last >= seq ? await runs.findReceipt(run) : undefined;
    if (receipt !== undefined) {
      parcels.push({ item: { type: 'receipt', run, envelope: receipt }, run, told: seq + 1 });
    }
    return parcels;
  }

  /** False when something has to be sent again. */
  async #confirm(parcels: readonly Parcel[], results: readonly OutboxResult[]): Promise<boolean> {
    const { cursors } = this.#deps.journal;
    // run → events the coordinator has
    const confirmed = new Map<string, number>();
    const stuck = new Set<string>();
    for (const [index, parcel] of parcels.entries()) {
      const { run, told } = parcel;
      if (stuck.has(run)) continue;
      const outcome = this.#judge(parcel, results[index]);
      if (outcome === 'taken' && parcel.item.type !== 'run') confirmed.set(run, told);
      // Nothing of it will ever be taken.
      if (outcome === 'hopeless') confirmed.set(run, Number.MAX_SAFE_INTEGER);
      if (outcome === 'hopeless' || outcome === 'stuck') stuck.add(run);
      if (typeof outcome === 'number') {
        await cursors.rewind(run, outcome);
        stuck.add(run);
      }
    }
    const rows = [...confirmed].map(([run, told]) => ({ run, told }));
    if (rows.length > 0) await cursors.confirm(rows);
    if (stuck.size > 0 && confirmed.size === 0) {
      throw new HyphaError('E_UNAVAILABLE', 'the coordinator lacks what came before', {
        details: { runs: [...stuck] },
      });
    }
    return stuck.size === 0;
  }

  /** A number: the coordinator has this many events and lacks those after. */
  #judge(
    { item, run }: Parcel,
    result: OutboxResult | undefined,
  ): 'taken' | 'stuck' | 'hopeless' | number {
    if (item.type === 'run' && result?.status !== 'want-run') this.#unknown.delete(run);
    switch (result?.status) {
      case undefined:
        return 'stuck';
      case 'ok':
        return 'taken';
      case 'want-run':
        this.#unknown.add(run);
        return 'stuck';
      case 'want-events':
        return result.seq - 1;
      case 'refused': {
        const { problem } = result;
        this.#deps.log.error({ run, item: item.type, problem }, 'coordinator refused an item');
        return item.type === 'run' ? 'hopeless' : 'taken';
      }
      default:
        return result satisfies never;
    }
  }
}

/** Of what there was to tell when the batch was packed: what came since asks for itself. */
function isMoreLeft(backlog: readonly Backlog[], parcels: readonly Parcel[]): boolean {
  if (backlog.length === LIMITS.runsPerBatch) return true;
  const reached = new Map(parcels.map(({ run, told }) => [run, told]));
  return backlog.some(({ run, told, seq, ended }) => {
    return (reached.get(run) ?? told) < (ended ? seq + 1 : seq);
  });
}

/** In order, none over half a batch unless it is a single event. */
function slicesOf(events: readonly JournalEvent[]): JournalEvent[][] {
  const slices: JournalEvent[][] = [];
  let bytes = 0;
  for (const event of events) {
    bytes += bytesOf(event);
    const last = slices.at(-1);
    if (last !== undefined && bytes <= LIMITS.batchBytesMax / 2) {
      last.push(event);
    } else {
      slices.push([event]);
      bytes = bytesOf(event);
    }
  }
  return slices;
}

const bytesOf = (value: unknown) => Buffer.byteLength(JSON.stringify(value));
