import { type ErrorCode, firstIssue, HyphaError, LIMITS } from '@hypha/protocol';
import { z } from 'zod';
import type { Caller } from './caller.ts';
import type { ServerEvent } from './event-stream.ts';
import type { RouteAuth } from './request-auth.ts';

type Parsed<S> = S extends z.ZodType ? z.output<S> : undefined;

export interface RouteInput<P, Q, B> {
  readonly params: Parsed<P>;
  readonly query: Parsed<Q>;
  readonly body: Parsed<B>;
  /** Exact bytes of the body; empty when there is none. */
  readonly rawBody: Uint8Array;
  /** Whose signature was verified; undefined on `public` routes. */
  readonly caller: Caller | undefined;
  /** IP address the connection came from. */
  readonly address: string;
  /** Aborts when the client is gone or the answer is overdue. */
  readonly signal: AbortSignal;
}

interface RouteBase<P, Q> {
  /** With `:name` for parameters. */
  readonly path: string;
  readonly auth: RouteAuth;
  /** One line for `/openapi.json`. */
  readonly summary: string;
  /** Strict object of the path's parameters. */
  readonly params?: P;
  /** Strict object of query strings; see `queryInt` and `pageQuery`. */
  readonly query?: Q;
}

/** One endpoint with a JSON answer. */
export interface Route<P, Q, B, A extends z.ZodType> extends RouteBase<P, Q> {
  readonly method: 'GET' | 'POST';
  readonly body?: B;
  /** What a body that does not fit is refused with. `E_ENVELOPE` for submissions; else `E_REQUEST`. */
  readonly bodyRefusal?: ErrorCode;
  readonly bodyBytesMax?: number;
  /** Describes and types the answer; it is not checked at run time. */
  readonly answer: A;
  /** Of a good answer; 200 by default. */
  readonly status?: number;
  readonly handle: (input: RouteInput<P, Q, B>) => Promise<z.input<A>> | z.input<A>;
}

export interface StreamInput<P, Q> extends Omit<RouteInput<P, Q, undefined>, 'body' | 'rawBody'> {
  /** The client has every event up to this id; undefined: none. */
  readonly lastEventId: string | undefined;
}

/** One endpoint that answers with server-sent events. */
export interface StreamRoute<P, Q> extends RouteBase<P, Q> {
  /**
   * Throws before it resolves: a problem document. Then events are pulled one at a time, as fast as the
   * client reads; the stream ends when they end, when the client goes, or when the service stops.
   */
  readonly open: (input: StreamInput<P, Q>) => Promise<AsyncIterable<ServerEvent>>;
}

/** A whole number in a query string. */
export function queryInt(bounds: { readonly min: number; readonly max: number }) {
  return z
    .string()
    .regex(/^-?\d{1,16}$/, 'not a whole number')
    .transform(Number)
    .pipe(z.int().min(bounds.min).max(bounds.max));
}

/** Members of every list's query: `z.strictObject({ ...pageQuery, … })`. */
export const pageQuery = {
  limit: queryInt({ min: 1, max: LIMITS.listItemsMax }).default(LIMITS.listItemsDefault),
  cursor: z.string().max(256).optional(),
} as const;

/** Parses one part of a request. Throws `refusal` with the field in `where.path`. */
export function parsePart<S extends z.ZodType>(
  schema: S,
  value: unknown,
  part: 'params' | 'query' | 'body',
  refusal: ErrorCode = 'E_REQUEST',
): z.output<S> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = firstIssue(parsed.error);
  const path = part === 'body' ? issue.path : [part, issue.path].filter(Boolean).join('.');
  throw new HyphaError(refusal, `the request does not fit: ${path || part}: ${issue.message}`, {
    where: { path: path || part },
  });
}
