import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { HyphaError, LIMITS } from '@hypha/protocol';
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import type { Registry } from 'prom-client';
import type { z } from 'zod';
import type { Caller, FindKey } from './caller.ts';
import { systemClock, type WallClock } from './clock.ts';
import { writeEvents } from './event-stream.ts';
import { LISTENER_DEFAULTS, Listener, type ListenerConfig } from './listener.ts';
import type { Logger } from './logger.ts';
import { addGauge, createServiceMetrics, type ServiceMetrics } from './metrics.ts';
import { NonceMemory } from './nonce-memory.ts';
import type { DescribedRoute } from './open-api.ts';
import {
  answerBrokenConnection,
  problemReply,
  sendProblem,
  toRequestError,
} from './problem-reply.ts';
import { RequestAuthenticator } from './request-auth.ts';
import { RequestLimits } from './request-limits.ts';
import {
  acceptOnlyJson,
  lastEventId,
  nameOf,
  type ReadableRoute,
  type ReadRequest,
  readRequest,
} from './request-reader.ts';
import { RequestTurns } from './request-turns.ts';
import type { Route, StreamRoute } from './route.ts';
import { jsonBytes, refuseOtherMethods, serveDocuments, serveStatus } from './standard-routes.ts';

/** Bounds of one server. Milliseconds end the names of times. */
const BOUNDS = {
  /** From routing to the answer. */
  handlerMs: 30_000,
  /** What is left of closing after this is cut off. */
  closeMs: 10_000,
  /** Event streams open at once. */
  streams: 20_000,
  /** How often the key that opened a stream is looked at again. */
  streamCheckMs: 5_000,
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
  /** How often the key that opened a stream is looked at again, milliseconds. */
  readonly streamCheckMs?: number;
  /** TLS and limits. */
  readonly listener?: Partial<ListenerConfig>;
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
  /** Port 0 takes a free one. Answers `http://host:port`, or `https://…`. No route can be added afterwards. */
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
  readonly #listener: Listener;
  readonly #limits: RequestLimits;
  readonly #turns: RequestTurns;
  readonly #checkMs: number;
  readonly #authenticator: RequestAuthenticator;
  readonly #metrics: ServiceMetrics = createServiceMetrics();
  readonly #routes: DescribedRoute[] = [];
  readonly #stopping = new AbortController();
  #streams = 0;

  constructor(options: ServerOptions) {
    const { log, clock = systemClock, findKey = () => undefined } = options;
    const config = { ...LISTENER_DEFAULTS, ...definedOf(options.listener) };
    this.#log = log;
    this.#listener = new Listener(config);
    this.#limits = new RequestLimits(config);
    this.#checkMs = options.streamCheckMs ?? BOUNDS.streamCheckMs;
    this.#authenticator = new RequestAuthenticator({ findKey, nonces: new NonceMemory(), clock });
    this.#fastify = fastify({
      logger: false,
      trustProxy: false,
      exposeHeadRoutes: false,
      bodyLimit: LIMITS.bodyBytesMax,
      serverFactory: (handler) => this.#listener.createServer(handler),
      forceCloseConnections: 'idle',
      clientErrorHandler: answerBrokenConnection,
      frameworkErrors: (error, request, reply) => this.#refuse(error, request, reply),
    });
    this.#turns = new RequestTurns(config.requestsAtOnce);
    this.#fastify.addHook('onRequest', (request, _reply, done) => {
      const fault = this.#findFault(request);
      if (fault === undefined) this.#turns.wait(done);
      else done(fault);
    });
    acceptOnlyJson(this.#fastify);
    this.#fastify.setErrorHandler((error, request, reply) => this.#refuse(error, request, reply));
    this.#fastify.setNotFoundHandler((request, reply) =>
      this.#refuse(noRoute(request), request, reply),
    );
    this.#measureRequests();
    serveStatus(this, options);
    const { name: title, version } = options;
    serveDocuments(this.#fastify, this.metrics, { title, version, routes: this.#routes });
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
        const answer = await this.#limits.answer(async () => {
          const input = await this.#read(route, request);
          return await handle({ ...input, signal: request.signal });
        });
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
        const input = await this.#limits.answer(() => this.#read(route, request));
        if (this.#streams >= BOUNDS.streams) {
          throw new HyphaError('E_UNAVAILABLE', `${BOUNDS.streams} event streams are open`);
        }
        const events = await open({ ...input, signal, lastEventId: lastEventId(request) });
        reply.hijack();
        this.#metrics.openStreams.set(++this.#streams);
        const check = setInterval(() => void this.#checkStays(input.caller, gone), this.#checkMs);
        check.unref();
        try {
          await writeEvents(reply.raw, events, signal);
        } catch (err) {
          this.#log.error({ err, route: route.path }, 'event stream failed');
        } finally {
          clearInterval(check);
          this.#metrics.openStreams.set(--this.#streams);
        }
      },
    });
  }

  async listen(address: { readonly host: string; readonly port: number }): Promise<string> {
    refuseOtherMethods(this.#fastify, this.#routes);
    if (this.#listener.isOpenTo(address.host)) {
      this.#log.warn({ ...address, hint: 'set tlsCert and tlsKey' }, 'listener without TLS');
    }
    await leaveSecondOfStart();
    this.#authenticator.start();
    await this.#fastify.listen(address);
    // A TCP listener's address is an object.
    const { port } = this.#fastify.server.address() as AddressInfo;
    const host = address.host.includes(':') ? `[${address.host}]` : address.host;
    return `${this.#listener.scheme}://${host}:${port}`;
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

  async #read(route: ReadableRoute, request: FastifyRequest): Promise<ReadRequest> {
    return await readRequest(route, request, {
      scheme: this.#listener.scheme,
      authenticator: this.#authenticator,
      limits: this.#limits,
    });
  }

  /** Ends the stream of a caller that may no longer have it; coming back tells it why. */
  async #checkStays(caller: Caller | undefined, gone: AbortController): Promise<void> {
    if (caller === undefined || (await this.#authenticator.mayStay(caller))) return;
    this.#log.info({ keyid: caller.keyid, key: caller.name }, 'event stream of a key ended');
    gone.abort();
  }

  /** What is wrong with a request already before it is routed. */
  #findFault(request: FastifyRequest): HyphaError | undefined {
    try {
      this.#limits.checkAddress(request.raw.socket.remoteAddress ?? '');
    } catch (error) {
      if (error instanceof HyphaError) return error;
      throw error;
    }
    return hostFault(request);
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
}

/**
 * Nonces are not remembered over a restart, and signatures say their time in whole seconds: those that an
 * earlier process has seen are older than this one's start only once the second it was started in is over.
 */
async function leaveSecondOfStart(): Promise<void> {
  const leftMs = 1000 - (performance.timeOrigin % 1000) - performance.now();
  if (leftMs > 0) await delay(leftMs);
}

/** A configuration's members that are set: an absent one must not hide a default. */
function definedOf(config: Partial<ListenerConfig> = {}): Partial<ListenerConfig> {
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
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
