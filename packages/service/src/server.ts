import type { AddressInfo } from 'node:net';
import { HyphaError, LIMITS } from '@hypha/protocol';
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import type { Registry } from 'prom-client';
import { z } from 'zod';
import type { FindKey } from './caller.ts';
import { systemClock, type WallClock } from './clock.ts';
import { writeEvents } from './event-stream.ts';
import type { Logger } from './logger.ts';
import { addGauge, createServiceMetrics, type ServiceMetrics } from './metrics.ts';
import { NonceMemory } from './nonce-memory.ts';
import { type DescribedRoute, describeApi } from './open-api.ts';
import {
  answerBrokenConnection,
  problemReply,
  sendProblem,
  toRequestError,
} from './problem-reply.ts';
import { RequestAuthenticator } from './request-auth.ts';
import {
  acceptOnlyJson,
  lastEventId,
  nameOf,
  type ReadRequest,
  readRequest,
} from './request-reader.ts';
import type { Route, StreamRoute } from './route.ts';

/** Bounds of one server. Milliseconds end the names of times. */
const BOUNDS = {
  /** Whole request, headers and body, on the wire. */
  requestMs: 10_000,
  /** How often that is looked at. */
  requestCheckMs: 5_000,
  /** A connection on which nothing moves; longer than a stream's heartbeat. */
  connectionMs: 60_000,
  /** From routing to the answer. */
  handlerMs: 30_000,
  keepAliveMs: 20_000,
  /** What is left of closing after this is cut off. */
  closeMs: 10_000,
  connections: 40_000,
  /** Event streams open at once. */
  streams: 20_000,
} as const;

export interface ServerOptions {
  /** Shown in `/openapi.json`. */
  readonly name: string;
  readonly version: string;
  readonly log: Logger;
  /** Keys that may sign requests here. Default: none. */
  readonly findKey?: FindKey;
  /** Throws, with the reason, while the service cannot do its work: `/readyz`. */
  readonly checkReady?: () => Promise<void> | void;
  readonly clock?: WallClock;
}

/** A service's HTTP side: routes with schemas, problem documents, streams, and what every service serves. */
export interface HyphaServer {
  /** For the service's own numbers, served at `/metrics`. */
  readonly metrics: Registry;
  /** Adds a number to `/metrics` that is read when it is scraped. */
  gauge(name: string, help: string, read: () => number): void;
  route<
    A extends z.ZodType,
    P extends z.ZodType | undefined = undefined,
    Q extends z.ZodType | undefined = undefined,
    B extends z.ZodType | undefined = undefined,
  >(route: Route<P, Q, B, A>): void;
  stream<P extends z.ZodType | undefined = undefined, Q extends z.ZodType | undefined = undefined>(
    route: StreamRoute<P, Q>,
  ): void;
  /** Port 0 takes a free one. Answers `http://host:port`. No route can be added afterwards. */
  listen(address: { readonly host: string; readonly port: number }): Promise<string>;
  /** Ends streams, lets answers in flight finish, closes every connection. Idempotent. */
  close(): Promise<void>;
}

type HandlerInput = ReadRequest & { readonly signal: AbortSignal };
type StreamHandlerInput = HandlerInput & { readonly lastEventId: string | undefined };

export function createServer(options: ServerOptions): HyphaServer {
  return new Server(options);
}

class Server implements HyphaServer {
  readonly #fastify: FastifyInstance;
  readonly #log: Logger;
  readonly #authenticator: RequestAuthenticator;
  readonly #metrics: ServiceMetrics = createServiceMetrics();
  readonly #routes: DescribedRoute[] = [];
  readonly #stopping = new AbortController();
  #streams = 0;

  constructor(options: ServerOptions) {
    this.#log = options.log;
    this.#authenticator = new RequestAuthenticator({
      findKey: options.findKey ?? (() => undefined),
      nonces: new NonceMemory(),
      clock: options.clock ?? systemClock,
    });
    this.#fastify = fastify({
      logger: false,
      trustProxy: false,
      exposeHeadRoutes: false,
      bodyLimit: LIMITS.bodyBytesMax,
      requestTimeout: BOUNDS.requestMs,
      connectionTimeout: BOUNDS.connectionMs,
      keepAliveTimeout: BOUNDS.keepAliveMs,
      // Without this Node answers a request that names no host by itself, and not with a problem document.
      http: { connectionsCheckingInterval: BOUNDS.requestCheckMs, requireHostHeader: false },
      forceCloseConnections: 'idle',
      clientErrorHandler: answerBrokenConnection,
      frameworkErrors: (error, request, reply) => this.#refuse(error, request, reply),
    });
    this.#fastify.server.maxConnections = BOUNDS.connections;
    this.#fastify.addHook('onRequest', (request, _reply, done) => done(hostFault(request)));
    acceptOnlyJson(this.#fastify);
    this.#fastify.setErrorHandler((error, request, reply) => this.#refuse(error, request, reply));
    this.#fastify.setNotFoundHandler((request, reply) =>
      this.#refuse(noRoute(request), request, reply),
    );
    this.#measureRequests();
    this.#serveStatus(options);
    this.#serveDocuments(options);
  }

  get metrics(): Registry {
    return this.#metrics.registry;
  }

  gauge(name: string, help: string, read: () => number): void {
    addGauge(this.#metrics.registry, { name, help, read });
  }

  route<
    A extends z.ZodType,
    P extends z.ZodType | undefined,
    Q extends z.ZodType | undefined,
    B extends z.ZodType | undefined,
  >(route: Route<P, Q, B, A>): void {
    this.#routes.push(route);
    // The schemas produce exactly the types the handler was declared with.
    const handle = route.handle as (input: HandlerInput) => unknown;
    this.#fastify.route({
      method: route.method,
      url: route.path,
      handlerTimeout: BOUNDS.handlerMs,
      ...(route.bodyBytesMax === undefined ? {} : { bodyLimit: route.bodyBytesMax }),
      handler: async (request, reply) => {
        const input = await readRequest(route, request, this.#authenticator);
        const answer = await handle({ ...input, signal: request.signal });
        return reply
          .code(route.status ?? 200)
          .header('content-type', 'application/json')
          .header('cache-control', 'no-store')
          .send(jsonBytes(answer));
      },
    });
  }

  stream<P extends z.ZodType | undefined, Q extends z.ZodType | undefined>(
    route: StreamRoute<P, Q>,
  ): void {
    this.#routes.push({ ...route, method: 'GET' });
    // As in `route`.
    const open = route.open as (input: StreamHandlerInput) => ReturnType<typeof route.open>;
    this.#fastify.route({
      method: 'GET',
      url: route.path,
      handler: async (request, reply) => {
        const gone = new AbortController();
        reply.raw.once('close', () => gone.abort());
        const signal = AbortSignal.any([gone.signal, this.#stopping.signal]);
        const input = await readRequest(route, request, this.#authenticator);
        if (this.#streams >= BOUNDS.streams) {
          throw new HyphaError('E_UNAVAILABLE', `${BOUNDS.streams} event streams are open`);
        }
        const events = await open({ ...input, signal, lastEventId: lastEventId(request) });
        reply.hijack();
        this.#metrics.openStreams.set(++this.#streams);
        try {
          await writeEvents(reply.raw, events, signal);
        } catch (err) {
          this.#log.error({ err, route: route.path }, 'event stream failed');
        } finally {
          this.#metrics.openStreams.set(--this.#streams);
        }
      },
    });
  }

  async listen(address: { readonly host: string; readonly port: number }): Promise<string> {
    await this.#fastify.listen(address);
    // A TCP listener's address is an object.
    const { port } = this.#fastify.server.address() as AddressInfo;
    const host = address.host.includes(':') ? `[${address.host}]` : address.host;
    return `http://${host}:${port}`;
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    const { server } = this.#fastify;
    const cutOff = setTimeout(() => server.closeAllConnections(), BOUNDS.closeMs);
    try {
      await this.#fastify.close();
    } finally {
      clearTimeout(cutOff);
    }
  }

  #refuse(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
    const refusal = toRequestError(error, nameOf(request));
    const answer = problemReply(refusal);
    const fields = { method: request.method, route: request.routeOptions.url, code: refusal.code };
    if (answer.status >= 500 && !refusal.retryable) {
      this.#log.error({ ...fields, err: refusal }, 'request failed');
    } else {
      this.#log.debug({ ...fields, detail: refusal.message }, 'request refused');
    }
    sendProblem(request, reply, answer);
  }

  #measureRequests(): void {
    this.#fastify.addHook('onResponse', (request, reply, done) => {
      const labels = {
        method: request.method,
        route: request.routeOptions.url ?? 'unknown',
        status: String(reply.statusCode),
      };
      this.#metrics.requestSeconds.observe(labels, reply.elapsedTime / 1000);
      done();
    });
  }

  #serveStatus({ checkReady }: ServerOptions): void {
    const status = z.object({ status: z.literal('ok') });
    this.route({
      method: 'GET',
      path: '/healthz',
      auth: 'public',
      summary: 'The process answers.',
      answer: status,
      handle: () => ({ status: 'ok' as const }),
    });
    this.route({
      method: 'GET',
      path: '/readyz',
      auth: 'public',
      summary: 'The service can do its work.',
      answer: status,
      handle: async () => {
        await checkReady?.();
        return { status: 'ok' as const };
      },
    });
  }

  #serveDocuments({ name: title, version }: ServerOptions): void {
    this.#fastify.get('/metrics', async (_request, reply) => {
      const { registry } = this.#metrics;
      return reply.header('content-type', registry.contentType).send(await registry.metrics());
    });
    let document: Buffer | undefined;
    this.#fastify.get('/openapi.json', async (_request, reply) => {
      document ??= jsonBytes(describeApi({ title, version }, this.#routes));
      return reply.header('content-type', 'application/json').send(document);
    });
  }
}

/** RFC 9112 §3.2. */
function hostFault({ raw }: FastifyRequest): HyphaError | undefined {
  if (raw.headers.host !== undefined || raw.httpVersion === '1.0') return undefined;
  return new HyphaError('E_REQUEST', 'cannot serve a request that names no host', {
    where: { path: 'host' },
  });
}

function noRoute(request: FastifyRequest): HyphaError {
  return new HyphaError('E_NOT_FOUND', `no ${nameOf(request)} here`, {
    hint: 'compare method and path with /openapi.json',
  });
}

/** Bytes, because Fastify adds a charset parameter to text, and JSON has none (RFC 8259 §11). */
function jsonBytes(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
