/**
 * A ledger and a coordinator that answer whatever a test puts in: the ledger honestly, the coordinator as a
 * hostile one would. Real HTTP, so that the command line can be tried as a process.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  type Authority,
  Envelope,
  eventHash,
  GENESIS_HASH,
  HyphaError,
  hex,
  type JournalBody,
  type JournalEvent,
  type NodeView,
  type RunId,
  type RunView,
  type SubmissionAccepted,
  toProblem,
  utf8,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { type TestFleet, TestLog } from '@hypha/testkit';
import { z } from 'zod';

/** What the coordinator answers, by what is asked. */
export interface CoordinatorScript {
  accepted: SubmissionAccepted;
  /** Of every run. */
  events: readonly JournalEvent[];
  view: RunView | undefined;
  receipt: Envelope | undefined;
  /** To a cancel; undefined: it answers as if there were no such path. */
  onCancel?: (body: string) => unknown;
}

export class FakeServices implements AsyncDisposable {
  readonly log: TestLog;
  /** What the ledger says of them. */
  nodes: readonly NodeView[] = [];
  /** In the ledger's log. */
  receipts: readonly Envelope[] = [];
  readonly coordinator: CoordinatorScript;
  readonly #fleet: TestFleet;
  readonly #enrolments: readonly { readonly node: string; readonly envelope: Envelope }[];
  readonly #servers: Server[] = [];
  #authority: Authority;
  #urls: readonly string[] = [];

  private constructor(
    fleet: TestFleet,
    enrolments: readonly { readonly node: string; readonly envelope: Envelope }[],
  ) {
    this.#fleet = fleet;
    this.#enrolments = enrolments;
    this.log = TestLog.of(fleet);
    this.#authority = fleet.authority;
    this.coordinator = {
      accepted: { revision: 'rev', runs: [] },
      events: [],
      view: undefined,
      receipt: undefined,
    };
  }

  /** @param enrolments as they stand in the ledger's log */
  static async start(
    fleet: TestFleet,
    enrolments: readonly { readonly node: string; readonly envelope: Envelope }[],
  ): Promise<FakeServices> {
    const services = new FakeServices(fleet, enrolments);
    services.#urls = [
      await services.#listen((url, _reply, body) => services.#ledgerAnswer(url, body)),
      await services.#listen((url, reply, body) => services.#coordinatorAnswer(url, reply, body)),
    ];
    return services;
  }

  /** The chain, with what was appended here. */
  get authority(): Authority {
    return this.#authority;
  }

  /** `context.json` of somebody with these key files. */
  context(keys: Readonly<Record<string, string>>) {
    const [ledger, coordinator] = this.#urls;
    return { ledger, coordinator, genesis: this.#authority.genesisHash, keys, nodes: [] };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    }
  }

  #ledgerAnswer({ pathname, searchParams }: URL, body: string): unknown {
    const { genesis } = this.#fleet;
    if (pathname === '/v1/authority' && body !== '') {
      const { envelope } = z.object({ envelope: Envelope }).parse(JSON.parse(body));
      this.#authority = this.#authority.apply(envelope);
      return { seq: this.#authority.seq, hash: this.#authority.head };
    }
    const authority = this.#authority;
    switch (pathname) {
      case '/v1/genesis':
        return { envelope: genesis, hash: authority.genesisHash };
      case '/v1/authority': {
        const since = Number(searchParams.get('since') ?? -1);
        const head = { seq: authority.seq, hash: authority.head };
        return { items: authority.updates.slice(since + 1), head };
      }
      case '/v1/nodes':
        return { items: this.nodes, nextCursor: null };
      case '/v1/log/checkpoint':
        return { checkpoint: this.log.checkpoint() };
      case '/v1/log/entries': {
        const kind = searchParams.get('kind') ?? '';
        const enrolments = this.#enrolments
          .filter(({ node }) => node === searchParams.get('node'))
          .map(({ envelope }) => envelope);
        const items = (kind === 'enrol' ? enrolments : this.receipts).map((envelope, index) => ({
          ...{ index, at: 0, kind, digest: GENESIS_HASH, leafHash: GENESIS_HASH },
          envelope,
        }));
        return { items, nextCursor: null };
      }
      default:
        return undefined;
    }
  }

  #coordinatorAnswer({ pathname }: URL, reply: ServerResponse, body: string): unknown {
    const { accepted, events, view, receipt, onCancel } = this.coordinator;
    if (pathname === '/v1/cancellations') return onCancel?.(body);
    if (pathname === '/v1/deployments' && body !== '') return accepted;
    // It admits to nothing that it was not asked for by id.
    if (pathname === '/v1/deployments' || pathname === '/v1/runs')
      return { items: [], nextCursor: null };
    if (pathname.endsWith('/receipt')) return receipt;
    if (pathname.endsWith('/journal')) return { items: events, nextCursor: null };
    if (!pathname.endsWith('/events')) return view;
    reply.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const event of events) {
      reply.write(
        `id: ${event.seq}\nevent: ${event.body.type}\ndata: ${JSON.stringify(event)}\n\n`,
      );
    }
    // Left open: it has nothing more to say.
    return STREAMED;
  }

  async #listen(
    answer: (url: URL, reply: ServerResponse, body: string) => unknown,
  ): Promise<string> {
    const server = createServer((request: IncomingMessage, reply) => {
      const sent: Buffer[] = [];
      request.on('data', (chunk: Buffer) => sent.push(chunk));
      request.on('end', () => {
        const url = new URL(request.url ?? '/', 'http://fake');
        const body = answer(url, reply, Buffer.concat(sent).toString());
        if (body === STREAMED) return;
        const missing = body === undefined;
        reply.writeHead(missing ? 404 : request.method === 'POST' ? 202 : 200, {
          'content-type': missing ? 'application/problem+json' : 'application/json',
        });
        reply.end(
          JSON.stringify(missing ? toProblem(new HyphaError('E_NOT_FOUND', 'not here')) : body),
        );
      });
    });
    this.#servers.push(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
}

const STREAMED = Symbol('streamed');

/** A journal whose chain holds, whoever made it up. */
export function journalOf(run: RunId, bodies: readonly JournalBody[]): JournalEvent[] {
  const events: JournalEvent[] = [];
  for (const [index, body] of bodies.entries()) {
    const event = {
      ...{ run, seq: index + 1, epoch: 1, at: 0, body },
      prev: events.at(-1)?.hash ?? GENESIS_HASH,
    };
    events.push({ ...event, hash: eventHash(nodeVerifier, event) });
  }
  return events;
}

export function hashOf(text: string): string {
  return hex(nodeVerifier.sha256(utf8(text)));
}
