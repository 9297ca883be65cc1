import { fromProblem, HyphaError, LIMITS, Problem, type Signer, utf8 } from '@hypha/protocol';
import { Agent, type Dispatcher, request as send } from 'undici';
import type { z } from 'zod';
import { type ClientClock, systemClock } from './clock.ts';
import { EventStreamParser, type StreamEvent } from './event-stream.ts';
import { signRequest } from './request-signature.ts';

export interface HyphaClientOptions {
  /** `http://host:port` or `https://host:port`, no path; anything else is `E_ARGUMENT`. */
  readonly baseUrl: string;
  /** Certificates (PEM) to trust for https instead of the system's. */
  readonly ca?: string | undefined;
  /** Signs every request (RFC 9421); without one, requests go out unsigned. */
  readonly signer?: Signer;
  /** Whole exchange of one request, milliseconds. */
  readonly timeoutMs?: number;
  readonly clock?: ClientClock;
}

/** Values that are undefined are left out of the URL; an array repeats its name. */
export type Query = Readonly<
  Record<string, string | number | boolean | readonly string[] | undefined>
>;

export interface ApiRequest<T extends z.ZodType> {
  readonly method: 'GET' | 'POST';
  /** Starts with `/`; build it with `apiPath` when it holds ids. */
  readonly path: string;
  readonly query?: Query;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Schema of a 2xx answer; an empty body is parsed as `undefined`. */
  readonly answer: T;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

export interface StreamRequest {
  readonly path: string;
  readonly query?: Query;
  /** Resume after this event. */
  readonly lastEventId?: string;
  readonly signal: AbortSignal;
}

const TIMEOUT_MS = 15_000;
const CONNECT_TIMEOUT_MS = 5_000;
/** Silence after which a stream counts as dead; servers send a heartbeat every 15 s. */
const STREAM_SILENCE_MS_MAX = 45_000;
/** Bytes of one answer. */
const ANSWER_BYTES_MAX = 32 * 1024 * 1024;

/**
 * One service's HTTP API. Problem documents become `HyphaError`s with their own code; a service that cannot
 * be reached, does not answer in time, or answers from something in between is `E_UNAVAILABLE` (retryable)
 * and names the URL. An abort of the caller's signal rejects with the signal's reason.
 */
export class HyphaClient {
  readonly baseUrl: string;
  readonly #signer: Signer | undefined;
  readonly #timeoutMs: number;
  readonly #clock: ClientClock;
  readonly #agent: Agent;

  constructor(options: HyphaClientOptions) {
    this.baseUrl = parseOrigin(options.baseUrl);
    this.#signer = options.signer;
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#clock = options.clock ?? systemClock;
    const { ca } = options;
    this.#agent = new Agent({
      connect: { timeout: CONNECT_TIMEOUT_MS, ...(ca === undefined ? {} : { ca }) },
      connections: 64,
      pipelining: 1,
    });
  }

  async request<T extends z.ZodType>(api: ApiRequest<T>): Promise<z.infer<T>> {
    const timeoutMs = api.timeoutMs ?? this.#timeoutMs;
    const deadline = AbortSignal.timeout(timeoutMs);
    const signal = api.signal === undefined ? deadline : AbortSignal.any([api.signal, deadline]);
    const url = this.#url(api.path, api.query);
    const name = `${api.method} ${url}`;
    try {
      const { statusCode, body } = await this.#send({ ...api, url, signal });
      const bytes = await readWhole(body, name);
      if (statusCode < 200 || statusCode > 299) throw refusalOf(name, statusCode, bytes);
      return parseAnswer(api.answer, bytes, name);
    } catch (cause) {
      if (cause instanceof HyphaError) throw cause;
      if (api.signal?.aborted === true) throw api.signal.reason;
      if (deadline.aborted) {
        throw new HyphaError('E_UNAVAILABLE', `no answer to ${name} within ${timeoutMs} ms`);
      }
      throw unreachable(name, cause);
    }
  }

  /**
   * Events of one connection, until the server ends it or the signal aborts (which ends it without an
   * error). Reconnecting is the caller's: see `followStream`.
   */
  async *stream(request: StreamRequest): AsyncGenerator<StreamEvent, void, undefined> {
    const url = this.#url(request.path, request.query);
    const name = `GET ${url}`;
    try {
      const { statusCode, body } = await this.#send({ ...request, method: 'GET', url });
      if (statusCode !== 200) throw refusalOf(name, statusCode, await readWhole(body, name));
      const parser = new EventStreamParser(request.lastEventId);
      for await (const chunk of body) yield* parser.push(chunk);
    } catch (cause) {
      if (request.signal.aborted) return;
      if (cause instanceof HyphaError) throw cause;
      throw unreachable(name, cause);
    }
  }

  /** Ends connections that are open; requests in flight fail. */
  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  #url(path: string, query: Query = {}): URL {
    const url = new URL(path, this.baseUrl);
    for (const [name, value] of Object.entries(query)) {
      for (const each of Array.isArray(value) ? value : [value]) {
        if (each !== undefined) url.searchParams.append(name, String(each));
      }
    }
    return url;
  }

  /**
   * A service that has just started asks to sign again: it cannot know whether an earlier process took the
   * same signature. Once, and with a time that it takes.
   */
  async #send(request: OutgoingRequest): Promise<Dispatcher.ResponseData> {
    const nowMs = this.#clock.nowMs();
    const first = await this.#sendOnce(request, nowMs);
    if (first.statusCode !== 401 || this.#signer === undefined) return first;
    const name = `${request.method} ${request.url}`;
    const refusal = refusalOf(name, 401, await readWhole(first.body, name));
    const fromMs = signedFromMs(refusal);
    if (fromMs === undefined || fromMs > nowMs + LIMITS.skewSeconds * 1000) throw refusal;
    return await this.#sendOnce(request, Math.max(fromMs, this.#clock.nowMs()));
  }

  #sendOnce(request: OutgoingRequest, nowMs: number): Promise<Dispatcher.ResponseData> {
    const { method, url, signal } = request;
    const body = request.body === undefined ? undefined : utf8(JSON.stringify(request.body));
    const streaming = request.answer === undefined;
    const signature =
      this.#signer === undefined
        ? {}
        : signRequest({ method, url, body: body ?? new Uint8Array() }, this.#signer, {
            nowMs,
            nonce: this.#clock.nonce(),
          });
    return send(url, {
      method,
      dispatcher: this.#agent,
      signal,
      headersTimeout: STREAM_SILENCE_MS_MAX,
      bodyTimeout: STREAM_SILENCE_MS_MAX,
      headers: {
        accept: streaming ? 'text/event-stream' : 'application/json',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(request.lastEventId === undefined ? {} : { 'last-event-id': request.lastEventId }),
        ...signature,
      },
      ...(body === undefined ? {} : { body }),
    });
  }
}

interface OutgoingRequest {
  readonly method: 'GET' | 'POST';
  readonly url: URL;
  readonly body?: unknown;
  readonly lastEventId?: string;
  readonly signal: AbortSignal;
  readonly answer?: z.ZodType;
}

/** From when on a signature has to be, epoch milliseconds; undefined when that is not what is wrong. */
function signedFromMs({ details }: HyphaError): number | undefined {
  const { signedFrom } = Object(details) as { signedFrom?: unknown };
  return Number.isSafeInteger(signedFrom) ? Number(signedFrom) * 1000 : undefined;
}

function parseOrigin(text: string): string {
  const url = URL.parse(text);
  if (
    url === null ||
    !/^https?:$/.test(url.protocol) ||
    url.pathname !== '/' ||
    url.search !== ''
  ) {
    throw new HyphaError(
      'E_ARGUMENT',
      `cannot use ${JSON.stringify(text)} as a service's address`,
      {
        hint: 'write it as http://host:port or https://host:port',
      },
    );
  }
  return url.origin;
}

/** A path with its parts percent-encoded: ``apiPath`/v1/runs/${run}/events` ``. */
export function apiPath(parts: TemplateStringsArray, ...values: readonly string[]): string {
  return parts.reduce(
    (path, part, index) => path + encodeURIComponent(values[index - 1] ?? '') + part,
  );
}

async function readWhole(body: AsyncIterable<Uint8Array>, name: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > ANSWER_BYTES_MAX) {
      throw new HyphaError('E_SIZE', `answer to ${name} is over ${ANSWER_BYTES_MAX} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function parseAnswer<T extends z.ZodType>(schema: T, bytes: Uint8Array, name: string): z.infer<T> {
  let value: unknown;
  try {
    value = bytes.length === 0 ? undefined : JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (cause) {
    throw new HyphaError('E_UNAVAILABLE', `answer to ${name} is not JSON`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const path = parsed.error.issues[0]?.path.map(String).join('.') ?? '';
  throw new HyphaError('E_INTERNAL', `answer to ${name} does not fit its schema at "${path}"`, {
    hint: 'client and service are of different versions',
    cause: parsed.error,
    where: { path },
  });
}

function refusalOf(name: string, status: number, bytes: Uint8Array): HyphaError {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes.subarray(0, LIMITS.bodyBytesMax)).toString('utf8'));
  } catch {
    value = undefined;
  }
  const problem = Problem.safeParse(value);
  if (problem.success) return fromProblem(problem.data);
  const code = status >= 500 || status === 429 ? 'E_UNAVAILABLE' : 'E_INTERNAL';
  return new HyphaError(
    code,
    `${name} was answered with status ${status} and no problem document`,
    {
      hint: 'something other than Hypha answered at this address',
    },
  );
}

/** What a handshake fails with when the other side's certificate is not to be trusted (`openssl verify`). */
const UNTRUSTED = /CERT|VERIFY_LEAF|ERR_TLS_CERT_ALTNAME_INVALID|UNABLE_TO_GET_ISSUER/;

function unreachable(name: string, cause: unknown): HyphaError {
  const code =
    cause instanceof Error && 'code' in cause && typeof cause.code === 'string' ? cause.code : '';
  const reason = code === '' ? '' : ` (${code})`;
  if (!UNTRUSTED.test(code)) {
    return new HyphaError('E_UNAVAILABLE', `cannot reach ${name}${reason}`, { cause });
  }
  return new HyphaError('E_UNAVAILABLE', `cannot trust the certificate of ${name}${reason}`, {
    cause,
    hint: 'name the CA of the fleet: --ca FILE or HYPHA_CA for hypha, tlsCa for services',
  });
}
