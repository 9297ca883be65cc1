import type { Backlog, Journal } from '@hypha/journal';
import { HyphaError, type OutboxAnswer, type OutboxItem, type OutboxResult } from '@hypha/protocol';
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
      await this.#confirm(parcels, results.slice(acks.length));
      return this.#acks.length > 0 || backlog.length > 0;
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
        bytes += JSON.stringify(parcel.item).length;
        const isFull = bytes > LIMITS.batchBytesMax || parcels.length >= LIMITS.batchItemsMax;
        if (isFull && parcels.length > 0) return parcels;
        parcels.push(parcel);
      }
    }
    return parcels;
  }

  async #packRun({ run, source, told, seq, ended }: Backlog): Promise<Parcel[]> {
    const { journal } = this.#deps;
    const parcels: Parcel[] = [];
    if ((told === 0 && source === 'http') || this.#unknown.has(run)) {
      const envelope = await journal.runs.readEnvelope(run);
      parcels.push({ item: { type: 'run', run, envelope }, run, told });
    }
    let last = told;
    const events = await journal.runs.listEvents(run, { after: told, limit: LIMITS.eventsPerItem });
    let bytes = 0;
    for (let from = 0; from < events.length; ) {
      let to = from;
      for (bytes = 0; to < events.length; to++) {
        bytes += JSON.stringify(events[to]).length;
        if (bytes > LIMITS.batchBytesMax / 2 && to > from) break;
      }
      const slice = events.slice(from, to);
      last += slice.length;
      parcels.push({ item: { type: 'events', run, events: slice }, run, told: last });
      from = to;
    }
    if (ended && last >= seq) {
      const envelope = await journal.runs.findReceipt(run);
      if (envelope !== undefined) {
        parcels.push({ item: { type: 'receipt', run, envelope }, run, told: seq + 1 });
      }
    }
    return parcels;
  }

  async #confirm(parcels: readonly Parcel[], results: readonly OutboxResult[]): Promise<void> {
    const { journal, log } = this.#deps;
    // run → events the coordinator has
    const confirmed = new Map<string, number>();
    const stuck = new Set<string>();
    for (const [index, { item, run, told }] of parcels.entries()) {
      const result = results[index];
      if (stuck.has(run)) continue;
      if (result?.status === 'want-run') {
        this.#unknown.add(run);
        stuck.add(run);
      } else if (result?.status === 'want-events') {
        await journal.cursors.rewind(run, result.seq - 1);
        stuck.add(run);
      } else {
        if (result?.status === 'refused') {
          log.error(
            { run, item: item.type, problem: result.problem },
            'coordinator refused an item',
          );
        }
        if (item.type === 'run') this.#unknown.delete(run);
        else confirmed.set(run, told);
      }
    }
    const rows = [...confirmed].map(([run, told]) => ({ run, told }));
    if (rows.length > 0) await journal.cursors.confirm(rows);
    if (stuck.size > 0 && confirmed.size === 0) {
      throw new HyphaError('E_UNAVAILABLE', 'the coordinator lacks what came before', {
        details: { runs: [...stuck] },
      });
    }
  }
}
