import type { Journal, RunEntry } from '@hypha/journal';
import {
  Envelope,
  HyphaError,
  JournalEvent,
  Json,
  Name,
  NodeId,
  pageOf,
  RunId,
  RunState,
  RunView,
  Sha256Hex,
} from '@hypha/protocol';
import { type HyphaServer, pageQuery, queryInt, type ServerEvent } from '@hypha/service';
import { z } from 'zod';
import { followRun } from '../run-events.ts';

const RunParams = z.strictObject({ id: RunId });

const RunQuery = z.strictObject({
  ...pageQuery,
  /** `name` or `realm/name`. */
  deployment: z
    .string()
    .refine((text) => text.split('/').length <= 2, 'not realm/name')
    .refine((text) => text.split('/').every((part) => Name.safeParse(part).success), 'not a name')
    .optional(),
  /** For the same query at coordinator and node. */
  node: NodeId.optional(),
  state: RunState.optional(),
  since: queryInt({ min: 0, max: Number.MAX_SAFE_INTEGER }).optional(),
});

interface RunRoutesDeps {
  readonly journal: Journal;
  readonly node: string;
}

export function addRunRoutes(server: HyphaServer, { journal, node }: RunRoutesDeps): void {
  const { runs } = journal;
  const read = { method: 'GET', auth: 'read', params: RunParams } as const;
  server.route({
    method: 'GET',
    path: '/v1/runs',
    auth: 'read',
    summary: 'Runs of this node, newest first.',
    query: RunQuery,
    answer: pageOf(RunView),
    handle: async ({ query }) => {
      if (query.node !== undefined && query.node !== node) return { items: [], nextCursor: null };
      return await listRuns({ journal, node }, query);
    },
  });
  server.route({
    ...read,
    path: '/v1/runs/:id',
    summary: 'One run.',
    answer: RunView,
    handle: async ({ params }) => viewOf(await runs.getRun(params.id), node),
  });
  server.stream({
    path: '/v1/runs/:id/events',
    auth: 'read',
    summary: 'The journal of a run as it grows; id is its seq. Ends after finished.',
    params: RunParams,
    open: async ({ params, signal, lastEventId }) => {
      if (journal.findUnfinished(params.id) === undefined) await runs.getRun(params.id);
      return eventsOf(followRun(journal, params.id, seqOf(lastEventId), signal));
    },
  });
  server.route({
    ...read,
    path: '/v1/runs/:id/journal',
    summary: 'The journal of a run.',
    query: z.strictObject(pageQuery),
    answer: pageOf(JournalEvent),
    handle: async ({ params, query: { limit, cursor } }) => {
      await runs.getRun(params.id);
      const after = cursorOf(cursor) ?? 0;
      const items = await runs.listEvents(params.id, { after, limit: limit + 1 });
      const page = items.slice(0, limit);
      return { items: page, nextCursor: items.length > limit ? String(page.at(-1)?.seq) : null };
    },
  });
  server.route({
    ...read,
    path: '/v1/runs/:id/output',
    summary: 'What a committed run returned.',
    answer: z.object({ run: RunId, output: Json, sha256: Sha256Hex }),
    handle: async ({ params: { id } }) => {
      await runs.getRun(id);
      const committed = await runs.findCommitted(id);
      if (committed === undefined) throw missing(id, 'has not committed');
      const { output, outputSha256 } = committed;
      return { run: id, output: Json.parse(JSON.parse(output)), sha256: outputSha256 };
    },
  });
  server.route({
    ...read,
    path: '/v1/runs/:id/envelope',
    summary: 'What was signed, as it was submitted.',
    answer: Envelope,
    handle: ({ params }) => runs.readEnvelope(params.id),
  });
  server.route({
    ...read,
    path: '/v1/runs/:id/receipt',
    summary: 'The receipt of a run, signed by this node.',
    answer: Envelope,
    handle: async ({ params: { id } }) => {
      const receipt = await runs.findReceipt(id);
      if (receipt !== undefined) return receipt;
      await runs.getRun(id);
      throw missing(id, 'has not ended');
    },
  });
}

async function listRuns(
  { journal, node }: RunRoutesDeps,
  query: z.output<typeof RunQuery>,
): Promise<{ items: RunView[]; nextCursor: string | null }> {
  const { limit, cursor, state, since } = query;
  const parts = query.deployment?.split('/') ?? [];
  const deployment = parts.at(-1);
  const realm = parts.length === 2 ? parts[0] : undefined;
  const beforePosition = cursorOf(cursor);
  const entries = await journal.runs.listRuns({
    limit: limit + 1,
    ...(realm === undefined ? {} : { realm }),
    ...(deployment === undefined ? {} : { deployment }),
    ...(state === undefined ? {} : { state }),
    ...(since === undefined ? {} : { since }),
    ...(beforePosition === undefined ? {} : { beforePosition }),
  });
  const page = entries.slice(0, limit);
  return {
    items: page.map((entry) => viewOf(entry, node)),
    nextCursor: entries.length > limit ? String(page.at(-1)?.position) : null,
  };
}

function viewOf(entry: RunEntry, node: string): RunView {
  const { run, revision, realm, deployment, generation, mode, state, steps } = entry;
  const { acceptedAt, startedAt, endedAt, problem, simulated, message } = entry;
  return {
    ...{ run, revision, node, realm, deployment, generation, mode, state, steps },
    ...{ acceptedAt, startedAt, endedAt, problem, simulated, message },
    envelopeDigest: entry.digest,
  };
}

async function* eventsOf(
  events: AsyncIterable<JournalEvent>,
): AsyncGenerator<ServerEvent, void, undefined> {
  for await (const event of events) {
    yield { id: String(event.seq), event: event.body.type, data: JSON.stringify(event) };
  }
}

function seqOf(lastEventId: string | undefined): number {
  if (lastEventId === undefined || lastEventId === '') return 0;
  if (/^\d{1,15}$/.test(lastEventId)) return Number(lastEventId);
  throw new HyphaError('E_REQUEST', `this stream has no event ${JSON.stringify(lastEventId)}`, {
    where: { path: 'Last-Event-ID' },
  });
}

function cursorOf(cursor: string | undefined): number | undefined {
  if (cursor === undefined) return undefined;
  if (/^\d{1,15}$/.test(cursor)) return Number(cursor);
  throw new HyphaError('E_REQUEST', `this list has no cursor ${JSON.stringify(cursor)}`, {
    where: { path: 'query.cursor' },
  });
}

function missing(run: string, reason: string): HyphaError {
  return new HyphaError('E_NOT_FOUND', `${run} ${reason}`, {
    hint: 'follow it: hypha run events RUN',
  });
}
