import type { Journal } from '@hypha/journal';
import { isTerminal, type JournalEvent } from '@hypha/protocol';
import { Bell } from './bell.ts';
import { LIMITS } from './supervisor-limits.ts';

/** A run's events after `after`, then as they become durable; ends with the run or the signal. */
export async function* followRun(
  journal: Journal,
  run: string,
  after: number,
  signal: AbortSignal,
): AsyncGenerator<JournalEvent, void, undefined> {
  const bell = new Bell();
  const heard: JournalEvent[] = [];
  const unsubscribe = journal.subscribe((entry, events) => {
    if (entry.run !== run) return;
    heard.push(...events);
    // A reader this slow has the rest from the store.
    if (heard.length > LIMITS.eventsHeardMax) heard.length = 0;
    bell.ring();
  });
  let seq = after;
  try {
    while (!signal.aborted) {
      for await (const event of readStored(journal, run, seq)) {
        yield event;
        seq = event.seq;
      }
      const entry = journal.findUnfinished(run) ?? (await journal.runs.getRun(run));
      if (isTerminal(entry.state) && seq >= entry.seq) return;
      // Until what is heard does not continue what was seen.
      for (let isWhole = true; isWhole && !signal.aborted; ) {
        await bell.wait(LIMITS.streamLookMs, signal);
        const events = heard.splice(0).filter((event) => event.seq > seq);
        isWhole = events[0]?.seq === seq + 1;
        if (!isWhole) break;
        for (const event of events) {
          yield event;
          seq = event.seq;
          if (event.body.type === 'finished') return;
        }
      }
    }
  } finally {
    unsubscribe();
  }
}

async function* readStored(
  journal: Journal,
  run: string,
  after: number,
): AsyncGenerator<JournalEvent, void, undefined> {
  const limit = LIMITS.eventsPerItem;
  for (let seq = after; ; ) {
    const events = await journal.runs.listEvents(run, { after: seq, limit });
    yield* events;
    seq = events.at(-1)?.seq ?? seq;
    if (events.length < limit) return;
  }
}
