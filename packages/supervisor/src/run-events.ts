import type { Journal } from '@hypha/journal';
import { isTerminal, type JournalEvent } from '@hypha/protocol';

const EVENTS_PER_READ = 200;

/** A run's events after `after`, then as they become durable; ends with the run or the signal. */
export async function* followRun(
  journal: Journal,
  run: string,
  after: number,
  signal: AbortSignal,
): AsyncGenerator<JournalEvent, void, undefined> {
  let wake = Promise.withResolvers<void>();
  const unsubscribe = journal.subscribe((entry) => {
    if (entry.run === run) wake.resolve();
  });
  const onAbort = () => wake.resolve();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    for (let seq = after; !signal.aborted; ) {
      // Before the read: what comes during it is not missed.
      wake = Promise.withResolvers<void>();
      const events = await journal.runs.listEvents(run, { after: seq, limit: EVENTS_PER_READ });
      for (const event of events) {
        yield event;
        seq = event.seq;
        if (event.body.type === 'finished') return;
      }
      if (events.length === 0) {
        const entry = await journal.runs.getRun(run);
        if (isTerminal(entry.state) && seq >= entry.seq) return;
        if (entry.seq <= seq) await wake.promise;
      }
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    unsubscribe();
  }
}
