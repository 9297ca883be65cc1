import type { IncomingMessage } from 'node:http';
import {
  type ErrorCode,
  HyphaError,
  LIMITS,
  parseStrictJson,
  StrictJsonError,
} from '@hypha/protocol';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { BodyReader, tooLarge } from './body-reader.ts';
import type { Caller } from './caller.ts';
import type { RequestAuthenticator, RouteAuth } from './request-auth.ts';
import type { RequestLimits } from './request-limits.ts';
import { parsePart } from './route.ts';

const LAST_EVENT_ID_CHARS_MAX = 256;

/** What reading a request needs to know of its route. */
export interface ReadableRoute {
  readonly auth: RouteAuth;
  readonly params?: z.ZodType | undefined;
  readonly query?: z.ZodType | undefined;
  readonly body?: z.ZodType | undefined;
  readonly bodyRefusal?: ErrorCode | undefined;
}

/** Whom a service lets in. */
export interface RequestGuard {
  readonly scheme: 'http' | 'https';
  readonly authenticator: RequestAuthenticator;
  readonly limits: RequestLimits;
}

/** A request after all checks. The parts have the types that the route's schemas produce. */
export interface ReadRequest {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
  readonly rawBody: Uint8Array;
  readonly caller: Caller | undefined;
  readonly address: string;
}

/** Who is asking, then what: nothing of a request is parsed before its signature has been looked at. */
export async function readRequest(
  route: ReadableRoute,
  request: FastifyRequest,
  guard: RequestGuard,
): Promise<ReadRequest> {
  const rawBody = request.body instanceof Uint8Array ? request.body : new Uint8Array();
  const caller = await authenticate(route.auth, request, rawBody, guard);
  if (caller !== undefined) guard.limits.checkKey(caller.keyid);
  const { params, query = z.strictObject({}), body, bodyRefusal = 'E_REQUEST' } = route;
  return {
    caller,
    address: request.ip,
    rawBody,
    params: params === undefined ? undefined : parsePart(params, request.params, 'params'),
    // Spread: Fastify's query object has no prototype, and schemas want a plain one.
    query: parsePart(query, { ...Object(request.query) }, 'query'),
    body:
      body === undefined
        ? undefined
        : parsePart(body, parseBody(rawBody, bodyRefusal), 'body', bodyRefusal),
  };
}

/** Bodies are raw bytes of plain UTF-8 JSON, because signatures are over bytes; anything else is `E_TYPE`. */
export function acceptOnlyJson(server: FastifyInstance): void {
  const bodies = new BodyReader();
  server.removeAllContentTypeParsers();
  server.addContentTypeParser(
    'application/json',
    async (request: FastifyRequest, payload: IncomingMessage) => {
      const type = request.headers['content-type'] ?? '';
      const charset = /charset\s*=\s*"?([^\s;"]+)/i.exec(type)?.[1] ?? 'utf-8';
      const encoding = request.headers['content-encoding'] ?? 'identity';
      if (charset.toLowerCase() !== 'utf-8' || encoding !== 'identity') {
        throw new HyphaError('E_TYPE', `body of ${nameOf(request)} is not plain UTF-8 JSON`);
      }
      const bytesMax = request.routeOptions.bodyLimit ?? LIMITS.bodyBytesMax;
      if (Number(request.headers['content-length'] ?? 0) > bytesMax) throw tooLarge(bytesMax);
      return await bodies.read(payload, bytesMax);
    },
  );
}

/** `Last-Event-ID` of a stream's client; undefined when it has seen nothing. */
export function lastEventId(request: FastifyRequest): string | undefined {
  const value = request.headers['last-event-id'];
  if (typeof value !== 'string' || value === '') return undefined;
  if (value.length <= LAST_EVENT_ID_CHARS_MAX) return value;
  throw new HyphaError('E_REQUEST', `Last-Event-ID is over ${LAST_EVENT_ID_CHARS_MAX} characters`, {
    where: { path: 'last-event-id' },
  });
}

/** For messages: method and target, bounded. */
export function nameOf(request: FastifyRequest): string {
  return `${request.method} ${request.url.slice(0, 256)}`;
}

function authenticate(
  auth: RouteAuth,
  request: FastifyRequest,
  body: Uint8Array,
  { authenticator, scheme }: RequestGuard,
): Promise<Caller | undefined> {
  const target = request.raw.url ?? '/';
  const at = target.indexOf('?');
  const { id } = request.params as { id?: string };
  return authenticator.authenticate(auth, {
    scheme,
    method: request.method,
    authority: request.headers.host ?? '',
    path: at === -1 ? target : target.slice(0, at),
    query: at === -1 ? '' : target.slice(at),
    body,
    pathId: id,
    header: (name) => {
      const value = request.headers[name];
      return Array.isArray(value) ? value.join(', ') : value;
    },
  });
}

function parseBody(raw: Uint8Array, refusal: ErrorCode): unknown {
  try {
    return parseStrictJson(raw);
  } catch (cause) {
    const reason = cause instanceof StrictJsonError ? cause.message : 'not JSON';
    throw new HyphaError(refusal, `cannot read the body as strict JSON: ${reason}`, { cause });
  }
}
