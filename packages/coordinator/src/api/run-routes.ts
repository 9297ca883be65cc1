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
import { type HyphaServer, pageQuery, queryInt } from '@hypha/service';
import { z } from 'zod';
import type { Coordinator } from '../coordinator.ts';

const RunParams = z.strictObject({ id: RunId });

const RunQuery = z.strictObject({
  ...pageQuery,
  /** `name` or `realm/name`. */
  deployment: z
    .string()
    .refine((text) => text.split('/').every((part) => Name.safeParse(part).success), 'not a name')
    .refine((text) => text.split('/').length <= 2, 'not realm/name')
    .optional(),
  node: NodeId.optional(),
  state: RunState.optional(),
  since: queryInt({ min: 0, max: Number.MAX_SAFE_INTEGER }).optional(),
});

export function addRunRoutes(server: HyphaServer, { runs }: Coordinator): void {
  server.route({
    method: 'GET',
    path: '/v1/runs',
    auth: 'read',
    summary: 'Runs, newest first.',
    query: RunQuery,
    answer: pageOf(RunView),
    handle: ({ query }) => runs.list(query),
  });
  server.route({
    method: 'GET',
    path: '/v1/runs/:id',
    auth: 'read',
    summary: 'One run.',
    params: RunParams,
    answer: RunView,
    handle: ({ params }) => runs.get(params.id),
  });
  server.stream({
    path: '/v1/runs/:id/events',
    auth: 'read',
    summary: 'The journal of a run as it grows; id is its seq.',
    params: RunParams,
    open: async ({ params, signal, lastEventId }) => {
      await runs.get(params.id);
      return runs.events(params.id, eventNumber(lastEventId) ?? 0, signal);
    },
  });
  server.route({
    method: 'GET',
    path: '/v1/runs/:id/journal',
    auth: 'read',
    summary: 'The journal of a run.',
    params: RunParams,
    query: z.strictObject(pageQuery),
    answer: pageOf(JournalEvent),
    handle: ({ params, query }) => runs.journal(params.id, query),
  });
  server.route({
    method: 'GET',
    path: '/v1/runs/:id/output',
    auth: 'read',
    summary: 'What a committed run returned.',
    params: RunParams,
    answer: z.object({ run: RunId, output: Json, sha256: Sha256Hex }),
    handle: ({ params }) => runs.output(params.id),
  });
  server.route({
    method: 'GET',
    path: '/v1/runs/:id/envelope',
    auth: 'read',
    summary: 'What was signed for a run, as it was submitted.',
    params: RunParams,
    answer: Envelope,
    handle: ({ params }) => runs.envelope(params.id),
  });
  server.route({
    method: 'GET',
    path: '/v1/runs/:id/receipt',
    auth: 'read',
    summary: 'The receipt of a run, signed by its node.',
    params: RunParams,
    answer: Envelope,
    handle: ({ params }) => runs.receipt(params.id),
  });
}

/** `Last-Event-ID` of a stream whose ids are numbers. Throws `E_REQUEST`. */
export function eventNumber(lastEventId: string | undefined): number | undefined {
  if (lastEventId === undefined || lastEventId === '') return undefined;
  const number = Number(lastEventId);
  if (/^\d{1,16}$/.test(lastEventId) && Number.isSafeInteger(number)) return number;
  throw new HyphaError('E_REQUEST', `this stream has no event ${JSON.stringify(lastEventId)}`, {
    where: { path: 'Last-Event-ID' },
  });
}
