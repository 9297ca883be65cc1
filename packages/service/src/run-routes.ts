import {
  Envelope,
  HyphaError,
  JournalEvent,
  Json,
  Name,
  NodeId,
  type Page,
  PlanDocument,
  pageOf,
  RunId,
  RunState,
  RunView,
  Sha256Hex,
} from '@hypha/protocol';
import { z } from 'zod';
import { type Caller, mayRead, READERS, readableRealms } from './caller.ts';
import type { ServerEvent } from './event-stream.ts';
import { pageQuery, queryInt } from './route.ts';
import { readOutput, readPlan } from './run-plan.ts';
import type { HyphaServer } from './server.ts';

/** Which runs a list is about. */
export interface RunFilter {
  /** Only of these realms; undefined: of all. */
  readonly realms: readonly string[] | undefined;
  readonly deployment: string | undefined;
  readonly node: string | undefined;
  readonly state: string | undefined;
  /** Accepted at or after, epoch milliseconds. */
  readonly since: number | undefined;
  readonly limit: number;
  readonly cursor: string | undefined;
}

interface PageOptions {
  readonly limit: number;
  readonly cursor?: string | undefined;
}

/** What coordinator and node each have to tell of runs. `run` was found, and the caller may see it. */
export interface RunSource {
  find(run: string): Promise<RunView | undefined>;
  /** Newest first. */
  list(filter: RunFilter): Promise<Page<RunView>>;
  /** The journal after `seq` as it grows, until the run's end. */
  events(run: string, seq: number, signal: AbortSignal): AsyncIterable<ServerEvent>;
  journal(run: string, page: PageOptions): Promise<Page<JournalEvent>>;
  /** Undefined until the run has committed. `output` is the committed JSON text. */
  findOutput(run: string): Promise<{ output: string; sha256: string } | undefined>;
  envelope(run: string): Promise<Envelope>;
  /** Undefined until the node has signed it and it is here. */
  findReceipt(run: string): Promise<Envelope | undefined>;
}

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

/**
 * `GET /v1/runs…` (design §9). A run of a realm that the caller's grant does not cover is answered like one
 * that does not exist.
 */
export function addRunRoutes(server: HyphaServer, runs: RunSource): void {
  const auth = { roles: READERS };
  const read = { method: 'GET', auth, params: RunParams } as const;
  server.route({
    method: 'GET',
    path: '/v1/runs',
    auth,
    summary: 'Runs, newest first.',
    query: RunQuery,
    answer: pageOf(RunView),
    handle: ({ query, caller }) => runs.list(filterOf(query, caller)),
  });
  server.route({
    ...read,
    path: '/v1/runs/:id',
    summary: 'One run.',
    answer: RunView,
    handle: ({ params, caller }) => findVisible(runs, params.id, caller),
  });
  server.stream({
    path: '/v1/runs/:id/events',
    auth,
    summary: 'The journal of a run as it grows; id is its seq. Ends after finished.',
    params: RunParams,
    open: async ({ params, caller, signal, lastEventId }) => {
      await findVisible(runs, params.id, caller);
      return runs.events(params.id, eventNumber(lastEventId) ?? 0, signal);
    },
  });
  server.route({
    ...read,
    path: '/v1/runs/:id/journal',
    summary: 'The journal of a run.',
    query: z.strictObject(pageQuery),
    answer: pageOf(JournalEvent),
    handle: async ({ params, query, caller }) => {
      await findVisible(runs, params.id, caller);
      return await runs.journal(params.id, query);
    },
  });
  server.route({
    ...read,
    path: '/v1/runs/:id/output',
    summary: 'What a committed run returned.',
    answer: z.object({ run: RunId, output: Json, sha256: Sha256Hex }),
    handle: async ({ params: { id }, caller }) => {
      const view = await findVisible(runs, id, caller);
      const found = await runs.findOutput(id);
      if (found === undefined) throw missing(view, 'has no output');
      return { run: id, output: readOutput(view, found.output), sha256: found.sha256 };
    },
  });
  server.route({
    ...read,
    path: '/v1/runs/:id/plan',
    summary: 'What a run plans: of a plan run its output, of others their steps so far.',
    answer: PlanDocument,
    handle: async ({ params: { id }, caller }) =>
      await readPlan(runs, await findVisible(runs, id, caller)),
  });
  server.route({
    ...read,
    path: '/v1/runs/:id/envelope',
    summary: 'What was signed for a run, as it was submitted.',
    answer: Envelope,
    handle: async ({ params, caller }) => {
      await findVisible(runs, params.id, caller);
      return await runs.envelope(params.id);
    },
  });
  server.route({
    ...read,
    path: '/v1/runs/:id/receipt',
    summary: 'The receipt of a run, signed by its node.',
    answer: Envelope,
    handle: async ({ params: { id }, caller }) => {
      const view = await findVisible(runs, id, caller);
      const receipt = await runs.findReceipt(id);
      if (receipt === undefined) throw missing(view, 'has no receipt here');
      return receipt;
    },
  });
}

/** A run the caller may see. Throws `E_NOT_FOUND`. */
export async function findVisible(
  runs: Pick<RunSource, 'find'>,
  run: string,
  caller: Caller | undefined,
): Promise<RunView> {
  const view = await runs.find(run);
  if (view !== undefined && mayRead(caller, view.realm)) return view;
  throw new HyphaError('E_NOT_FOUND', `run ${run} is not known here`, { hint: 'hypha run list' });
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

function filterOf(query: z.output<typeof RunQuery>, caller: Caller | undefined): RunFilter {
  const { deployment: path, node, state, since, limit, cursor } = query;
  const parts = path?.split('/') ?? [];
  const deployment = parts.at(-1);
  const realm = parts.length === 2 ? parts[0] : undefined;
  const realms =
    realm === undefined ? readableRealms(caller) : [realm].filter((name) => mayRead(caller, name));
  return { realms, deployment, node, state, since, limit, cursor };
}

function missing({ run, state }: RunView, lack: string): HyphaError {
  return new HyphaError('E_NOT_FOUND', `run ${run} ${lack}: it is ${state}`, {
    hint: `follow it: hypha run events ${run}`,
  });
}
