import type { Journal } from '@hypha/journal';
import { Name, pageOf, SecretView } from '@hypha/protocol';
import { findSecretRefs } from '@hypha/sal';
import { type HyphaServer, mayRead, pageQuery, READERS } from '@hypha/service';
import { z } from 'zod';

/** Which secrets a node holds: names and versions, never a value (G9). */
export function addSecretRoutes(server: HyphaServer, journal: Journal): void {
  server.route({
    method: 'GET',
    path: '/v1/secrets',
    auth: { roles: READERS },
    summary: 'Secrets this node holds, by name and version; no value.',
    query: z.strictObject({ ...pageQuery, realm: Name.optional(), deployment: Name.optional() }),
    answer: pageOf(SecretView),
    handle: async ({ query, caller }) => {
      const { realm, deployment, limit, cursor = '' } = query;
      const views = (await listSecrets(journal))
        .filter((view) => mayRead(caller, view.realm))
        .filter((view) => realm === undefined || view.realm === realm)
        .filter((view) => deployment === undefined || view.deployment === deployment)
        .filter((view) => pathOf(view) > cursor);
      const items = views.slice(0, limit);
      const last = items.at(-1);
      const isWhole = last === undefined || views.length <= limit;
      return { items, nextCursor: isWhole ? null : pathOf(last) };
    },
  });
}

/** By realm, deployment, name and version. */
async function listSecrets(journal: Journal): Promise<SecretView[]> {
  const { records, provisional } = journal.records.readWorld();
  const users = [...records, ...provisional].flatMap(({ rid, kind, name, spec }) =>
    findSecretRefs(spec).map(({ version }) => ({ version, rid, user: `${kind}/${name}` })),
  );
  const views = (await journal.secrets.list()).map(({ createdAt, ...entry }) => {
    const used = users.filter(({ version }) => version === entry.version);
    return { ...entry, since: createdAt, usedBy: [...new Set(used.map(({ user }) => user))] };
  });
  return views.toSorted((a, b) => (pathOf(a) < pathOf(b) ? -1 : 1));
}

function pathOf({ realm, deployment, name, version }: SecretView): string {
  return `${realm}/${deployment}/${name}/${version}`;
}
