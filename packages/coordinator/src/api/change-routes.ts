import {
  eventNumber,
  type HyphaServer,
  READERS,
  readableRealms,
  type ServerEvent,
} from '@hypha/service';
import { CHANGES_TOPIC, realmOf } from '../change-feed.ts';
import type { Coordinator } from '../coordinator.ts';

export function addChangeRoutes(server: HyphaServer, coordinator: Coordinator): void {
  server.stream({
    path: '/v1/events',
    auth: { roles: READERS },
    summary: 'Runs and nodes as they change: event `run` or `node`, data the view.',
    open: async ({ caller, signal, lastEventId }) => {
      const head = await coordinator.changes.head();
      // An id from before this store was made would hold back everything up to it.
      const after = Math.min(eventNumber(lastEventId) ?? head, head);
      return changesAfter(coordinator, { after, realms: readableRealms(caller) }, signal);
    },
  });
}

async function* changesAfter(
  { changes, bell }: Coordinator,
  from: { readonly after: number; readonly realms: readonly string[] | undefined },
  signal: AbortSignal,
): AsyncGenerator<ServerEvent, void, undefined> {
  const rings = bell.listen(CHANGES_TOPIC, signal);
  const { realms } = from;
  let { after } = from;
  while (await rings.next()) {
    for (;;) {
      const rows = await changes.listAfter(after);
      for (const row of rows) {
        after = row.id;
        const realm = realms === undefined ? undefined : realmOf(row);
        if (realm !== undefined && realms?.includes(realm) === false) continue;
        yield { id: String(row.id), event: row.type, data: row.data };
      }
      if (rows.length === 0) break;
    }
  }
}
