import {
  AuthorityHead,
  AuthorityPage,
  Envelope,
  GenesisAnswer,
  HyphaError,
  LIMITS,
  LogAppended,
  LogEntry,
  NodeId,
  NodeView,
  Nonce,
  pageOf,
  RunId,
} from '@hypha/protocol';
import { type HyphaServer, pageQuery, queryInt, READERS } from '@hypha/service';
import { z } from 'zod';
import type { AuthorityChain } from './authority-chain.ts';
import type { ChallengeBook } from './challenge-book.ts';
import type { Enrolments } from './enrolments.ts';
import type { EntryIntake } from './entry-intake.ts';
import { LEDGER_LIMITS } from './ledger-limits.ts';
import type { LogEntries } from './log-entries.ts';
import type { NodeRegistry } from './node-registry.ts';

export interface LedgerParts {
  readonly authority: AuthorityChain;
  readonly challenges: ChallengeBook;
  readonly enrolments: Enrolments;
  readonly entries: LogEntries;
  readonly intake: EntryIntake;
  readonly nodes: NodeRegistry;
}

const EnvelopeBody = z.strictObject({ envelope: Envelope });
const submission = {
  body: EnvelopeBody,
  bodyRefusal: 'E_ENVELOPE',
  bodyBytesMax: LIMITS.submissionBytesMax,
} as const;
const NodeParams = z.strictObject({ id: NodeId });
/** A coordinator follows all of them. */
const NODE_READERS = [...READERS, 'coordinator'] as const;
const Label = z.string().regex(/^[^=]+=.*$/, 'not key=value');

/** The ledger's endpoints (design §9). */
export function serveLedger(server: HyphaServer, parts: LedgerParts): void {
  serveAuthority(server, parts);
  serveNodes(server, parts);
  serveEntries(server, parts);
}

function serveAuthority(server: HyphaServer, { authority }: LedgerParts): void {
  server.route({
    method: 'GET',
    path: '/v1/genesis',
    auth: 'public',
    summary: 'The first authority update and its digest, which is what contexts pin.',
    answer: GenesisAnswer,
    handle: () => {
      const { updates, genesisHash } = authority.current;
      const [envelope] = updates;
      if (envelope === undefined) throw new Error('an authority without a genesis');
      return { envelope, hash: genesisHash };
    },
  });
  server.route({
    method: 'GET',
    path: '/v1/authority',
    auth: 'public',
    summary: 'Authority updates behind `since`, oldest first, and the newest head.',
    query: z.strictObject({
      since: queryInt({ min: -1, max: Number.MAX_SAFE_INTEGER }).default(-1),
    }),
    answer: AuthorityPage,
    handle: ({ query }) => authority.page(query.since),
  });
  server.route({
    method: 'POST',
    path: '/v1/authority',
    auth: 'public',
    summary: 'Appends a signed authority update; answers the new head.',
    ...submission,
    answer: AuthorityHead,
    handle: ({ body }) => authority.append(body.envelope),
  });
}

function serveNodes(server: HyphaServer, parts: LedgerParts): void {
  const { nodes, challenges, enrolments } = parts;
  server.route({
    method: 'POST',
    path: '/v1/nodes/challenge',
    auth: 'public',
    summary: 'A challenge for one enrolment.',
    answer: z.object({ challenge: Nonce, expiresAt: z.int() }),
    handle: () => challenges.issue(),
  });
  server.route({
    method: 'POST',
    path: '/v1/nodes',
    auth: 'public',
    summary: 'Enrols a node by its signed statement; without an admission it is kept as pending.',
    ...submission,
    answer: NodeView,
    handle: ({ body, address }) => enrolments.enrol(body.envelope, address),
  });
  server.route({
    method: 'GET',
    path: '/v1/nodes',
    auth: { roles: NODE_READERS },
    summary:
      'Nodes by name; every `label=key=value` has to match. Those that wait to be admitted: `state=pending`.',
    query: z.strictObject({
      ...pageQuery,
      label: z
        .union([Label.transform((label) => [label]), z.array(Label)])
        .pipe(z.array(z.string()).max(LEDGER_LIMITS.labelsPerQuery))
        .default([]),
      state: NodeView.shape.state.optional(),
    }),
    answer: pageOf(NodeView),
    handle: ({ query }) =>
      nodes.list({
        labels: query.label.map(parseLabel),
        state: query.state,
        after: query.cursor ?? '',
        limit: query.limit,
      }),
  });
  server.route({
    method: 'GET',
    path: '/v1/nodes/:id',
    auth: { roles: NODE_READERS },
    summary: 'One node.',
    params: NodeParams,
    answer: NodeView,
    handle: async ({ params }) => nodes.view(await nodes.getById(params.id)),
  });
  server.route({
    method: 'POST',
    path: '/v1/nodes/:id/reports',
    auth: 'node',
    summary: 'Takes signed reports, oldest first; answers the newest seq the ledger has.',
    params: NodeParams,
    body: z.strictObject({
      reports: z.array(Envelope).min(1).max(LEDGER_LIMITS.reportsPerBatch),
    }),
    answer: z.object({ seq: z.int() }),
    handle: async ({ params, body }) => {
      const row = await nodes.getById(params.id);
      return { seq: await nodes.record(row, body.reports) };
    },
  });
}

function serveEntries(server: HyphaServer, { entries, intake }: LedgerParts): void {
  server.route({
    method: 'GET',
    path: '/v1/log/entries',
    auth: 'public',
    summary: 'Entries of the log by index, oldest first.',
    query: z.strictObject({
      ...pageQuery,
      kind: z.enum(['authority', 'admission', 'enrol', 'receipt']).optional(),
      run: RunId.optional(),
      node: NodeId.optional(),
    }),
    answer: pageOf(LogEntry),
    handle: ({ query }) =>
      entries.list({
        kind: query.kind,
        run: query.run,
        node: query.node,
        after: parseCursor(query.cursor),
        limit: query.limit,
      }),
  });
  server.route({
    method: 'POST',
    path: '/v1/log/entries',
    auth: 'public',
    summary: 'Appends an admission by an admin or a receipt by a node.',
    ...submission,
    answer: LogAppended,
    handle: ({ body }) => intake.append(body.envelope),
  });
}

function parseLabel(label: string): { readonly key: string; readonly value: string } {
  const at = label.indexOf('=');
  return { key: label.slice(0, at), value: label.slice(at + 1) };
}

function parseCursor(cursor: string | undefined): number {
  if (cursor === undefined) return -1;
  if (/^\d{1,15}$/.test(cursor)) return Number(cursor);
  throw new HyphaError('E_REQUEST', `cursor ${JSON.stringify(cursor)} is not of this list`, {
    where: { path: 'query.cursor' },
  });
}
