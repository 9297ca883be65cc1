import type { AddressInfo } from 'node:net';
import { HyphaError, LIMITS, parseStrictJson, StrictJsonError } from '@hypha/protocol';
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import type { Registry } from 'prom-client';
import { z } from 'zod';
import { systemClock, type WallClock } from './clock.ts';
import { writeEvents } from './event-stream.ts';
import type { Logger } from './logger.ts';
import { addGauge, createServiceMetrics, type ServiceMetrics } from './metrics.ts';
import { NonceMemory } from './nonce-memory.ts';
import { type DescribedRoute, describeApi } from './open-api.ts';
import { problemReply, toRequestError } from './problem-reply.ts';
import { type Caller, type FindKey, RequestAuthenticator, type RouteAuth } from './request-auth.ts';
import { parsePart, type Route, type StreamRoute } from './route.ts';

/** Bounds of one server. Milliseconds end the names of times. */
const BOUNDS = {
  /** Whole request, headers and body, on the wire. */
  requestMs: 10_000,
  /** A connection on which nothing moves; longer than a stream's heartbeat. */
  connectionMs: 60_000,
  /** From routing to the answer. */
  handlerMs: 30_000,
  keepAliveMs: 20_000,
  /** Event streams open at once. */
  streams: 20_000,
  lastEventIdChars: 256,
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

interface AnyInput {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
  readonly rawBody: Uint8Array;
  readonly caller: Caller | undefined;
  readonly signal: AbortSignal;
}

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
      forceCloseConnections: 'idle',
      return503OnClosing: true,
    });
    this.#acceptOnlyJson();
    this.#fastify.setErrorHandler((error, request, reply) => this.#refuse(error, request, reply));
    this.#fastify.setNotFoundHandler((request, reply) =>
      this.#refuse(new HyphaError('E_NOT_FOUND', `no ${nameOf(request)} here`), request, reply),
    );
    this.#fastify.addHook('onResponse', (request, reply, done) => {
      const labels = {
        method: request.method,
        route: request.routeOptions.url ?? 'unknown',
        status: String(reply.statusCode),
      };
      this.#metrics.requestSeconds.observe(labels, reply.elapsedTime / 1000);
      done();
    });
    this.#serveStatus(options);
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
    const handle = route.handle as (input: AnyInput) => unknown;
    this.#fastify.route({
      method: route.method,
      url: route.path,
      handlerTimeout: BOUNDS.handlerMs,
      ...(route.bodyBytesMax === undefined ? {} : { bodyLimit: route.bodyBytesMax }),
      handler: async (request, reply) => {
        const answer = await handle(await this.#read(route, request, request.signal));
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
    this.#fastify.route({
      method: 'GET',
      url: route.path,
      handler: async (request, reply) => {
        const gone = new AbortController();
        reply.raw.once('close', () => gone.abort());
        const signal = AbortSignal.any([gone.signal, this.#stopping.signal]);
        const input = await this.#read({ ...route, method: 'GET' }, request, signal);
        if (this.#streams >= BOUNDS.streams) {
          throw new HyphaError('E_UNAVAILABLE', `${BOUNDS.streams} event streams are open`);
        }
        // As in `route`: the schemas produce the declared types.
        const open = route.open as (
          input: AnyInput & { lastEventId: string | undefined },
        ) => ReturnType<typeof route.open>;
        const events = await open({ ...input, lastEventId: lastEventId(request) });
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
    const cutOff = setTimeout(
      () => this.#fastify.server.closeAllConnections(),
      BOUNDS.handlerMs / 3,
    );
    try {
      await this.#fastify.close();
    } finally {
      clearTimeout(cutOff);
    }
  }

  /** Who is asking, then what: nothing of a request is looked at before its signature. */
  async #read(
    route: DescribedRoute & {
      readonly bodyRefusal?: Route<never, never, never, never>['bodyRefusal'];
    },
    request: FastifyRequest,
    signal: AbortSignal,
  ): Promise<AnyInput> {
    const rawBody = request.body instanceof Uint8Array ? request.body : new Uint8Array();
    const caller = await this.#authenticate(route.auth, request, rawBody);
    const { params, query, body } = route;
    return {
      caller,
      signal,
      rawBody,
      params: params === undefined ? undefined : parsePart(params, request.params, 'params'),
      query: parsePart(query ?? z.strictObject({}), { ...Object(request.query) }, 'query'),
      body:
        body === undefined
          ? undefined
          : parsePart(body, parseBody(rawBody, route.bodyRefusal), 'body', route.bodyRefusal),
    };
  }

  #authenticate(
    auth: RouteAuth,
    request: FastifyRequest,
    body: Uint8Array,
  ): Promise<Caller | undefined> {
    const target = request.raw.url ?? '/';
    const at = target.indexOf('?');
    const { id } = request.params as { id?: string };
    return this.#authenticator.authenticate(auth, {
      method: request.method,
      authority: request.headers.host ?? '',
      path: at === -1 ? target : target.slice(0, at),
      query: at === -1 ? '' : target.slice(at),
      body,
      peerAddress: request.raw.socket.remoteAddress ?? '',
      pathId: id,
      header: (name) => {
        const value = request.headers[name];
        return Array.isArray(value) ? value.join(', ') : value;
      },
    });
  }

  #refuse(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
    const refusal = toRequestError(error, nameOf(request));
    const { status, headers, body } = problemReply(refusal);
    const fields = { method: request.method, route: request.routeOptions.url, code: refusal.code };
    if (status >= 500 && !refusal.retryable) {
      this.#log.error({ ...fields, err: refusal }, 'request failed');
    } else {
      this.#log.debug({ ...fields, detail: refusal.message }, 'request refused');
    }
    void reply.code(status).headers(headers).send(body);
  }

  #acceptOnlyJson(): void {
    this.#fastify.removeAllContentTypeParsers();
    this.#fastify.addContentTypeParser(
      'application/json',
      { parseAs: 'buffer' },
      (request, body, done) => {
        const charset = /charset\s*=\s*"?([^\s;"]+)/i.exec(
          request.headers['content-type'] ?? '',
        )?.[1];
        const encoding = request.headers['content-encoding'] ?? 'identity';
        if ((charset ?? 'utf-8').toLowerCase() !== 'utf-8' || encoding !== 'identity') {
          done(new HyphaError('E_TYPE', `body of ${nameOf(request)} is not plain UTF-8 JSON`));
        } else {
          done(null, body);
        }
      },
    );
  }

  #serveStatus(options: ServerOptions): void {
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
        await options.checkReady?.();
        return { status: 'ok' as const };
      },
    });
    this.#fastify.get('/metrics', async (_request, reply) => {
      const { registry } = this.#metrics;
      return reply.header('content-type', registry.contentType).send(await registry.metrics());
    });
    const { name: title, version } = options;
    let document: unknown;
    this.#fastify.get('/openapi.json', async (_request, reply) => {
      document ??= describeApi({ title, version }, this.#routes);
      return reply.header('content-type', 'application/json').send(jsonBytes(document));
    });
  }
}

function parseBody(
  raw: Uint8Array,
  refusal: Route<never, never, never, never>['bodyRefusal'],
): unknown {
  try {
    return parseStrictJson(raw);
  } catch (cause) {
    const reason = cause instanceof StrictJsonError ? cause.message : 'not JSON';
    throw new HyphaError(refusal ?? 'E_REQUEST', `cannot read the body as strict JSON: ${reason}`, {
      cause,
    });
  }
}

/** Bytes, because Fastify adds a charset parameter to text, and JSON has none (RFC 8259 §11). */
function jsonBytes(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function lastEventId(request: FastifyRequest): string | undefined {
  const value = request.headers['last-event-id'];
  if (typeof value === 'string' && value.length > BOUNDS.lastEventIdChars) {
    throw new HyphaError('E_REQUEST', 'Last-Event-ID is over its length', {
      where: { path: 'last-event-id' },
    });
  }
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function nameOf(request: FastifyRequest): string {
  return `${request.method} ${request.url.slice(0, 256)}`;
}
