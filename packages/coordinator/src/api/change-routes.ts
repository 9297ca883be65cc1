import type { HyphaServer, ServerEvent } from '@hypha/service';
import { CHANGES_TOPIC } from '../change-feed.ts';
import type { Coordinator } from '../coordinator.ts';
import { eventNumber } from './run-routes.ts';

export function addChangeRoutes(server: HyphaServer, coordinator: Coordinator): void {
  server.stream({
    path: '/v1/events',
    auth: 'read',
    summary: 'Runs and nodes as they change: event `run` or `node`, data the view.',
    open: async ({ signal, lastEventId }) => {
      const head = await coordinator.changes.head();
      // An id from before this store was made would hold back everything up to it.
      const after = Math.min(eventNumber(lastEventId) ?? head, head);
      return changesAfter(coordinator, after, signal);
    },
  });
}

async function* changesAfter(
  { changes, bell }: Coordinator,
  id: number,
  signal: AbortSignal,
): AsyncGenerator<ServerEvent, void, undefined> {
  const rings = bell.listen(CHANGES_TOPIC, signal);
  let after = id;
  while (await rings.next()) {
    for (;;) {
      const rows = await changes.listAfter(after);
      for (const row of rows) {
        yield { id: String(row.id), event: row.type, data: row.data };
        after = row.id;
      }
      if (rows.length === 0) break;
    }
  }
}
