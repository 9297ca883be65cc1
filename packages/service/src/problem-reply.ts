import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { HyphaError, isHyphaError, toProblem } from '@hypha/protocol';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';

/** What is still read of a body after it was refused. */
const DRAIN = { bytesMax: 64 * 1024 * 1024, ms: 5_000 } as const;

/** Every error a request can end with, as the one error class. Nothing of an unknown error gets out. */
export function toRequestError(error: unknown, request: string): HyphaError {
  if (isHyphaError(error)) return error;
  const { code, statusCode } = error as Partial<FastifyError>;
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new HyphaError('E_SIZE', `body of ${request} is over the limit`, { cause: error });
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new HyphaError('E_TYPE', `body of ${request} is not application/json`);
    case 'FST_ERR_HANDLER_TIMEOUT':
      return new HyphaError('E_UNAVAILABLE', `${request} was not done in time`);
    default:
      return statusCode !== undefined && statusCode < 500
        ? new HyphaError('E_REQUEST', `cannot read ${request}`, { cause: error })
        : new HyphaError('E_INTERNAL', `${request} failed`, { cause: error });
  }
}

export interface ProblemReply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export function problemReply(error: HyphaError): ProblemReply {
  const problem = toProblem(error);
  return {
    status: problem.status,
    headers: {
      'content-type': 'application/problem+json',
      'cache-control': 'no-store',
      ...headersOf(error),
      ...(problem.status === 401 ? { 'www-authenticate': 'Signature' } : {}),
    },
    body: Buffer.from(JSON.stringify(problem)),
  };
}

/** What an error says in headers too: RFC 9110 §10.2.1 `Allow`, §10.2.3 `Retry-After` in whole seconds. */
function headersOf({ details }: HyphaError): Readonly<Record<string, string>> {
  const { allow, retryAfterMs } = Object(details) as { allow?: unknown; retryAfterMs?: unknown };
  return {
    ...(Array.isArray(allow) ? { allow: allow.join(', ') } : {}),
    ...(typeof retryAfterMs === 'number'
      ? { 'retry-after': String(Math.max(1, Math.ceil(retryAfterMs / 1000))) }
      : {}),
  };
}

/**
 * Answers at once. A body that is still on its way is read and dropped before the connection closes: the
 * reset that closing over unread bytes causes would take the answer from a client that is still sending.
 */
export function sendProblem(
  request: FastifyRequest,
  reply: FastifyReply,
  { status, headers, body }: ProblemReply,
): void {
  if (request.raw.complete || !announcesBody(request.raw)) {
    void reply.code(status).headers(headers).send(body);
    return;
  }
  reply.hijack();
  if (reply.raw.destroyed) return;
  reply.raw.writeHead(status, {
    ...headers,
    'content-length': body.length,
    connection: 'close',
  });
  reply.raw.write(body);
  drain(request.raw, () => reply.raw.end());
}

function announcesBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

function drain(body: IncomingMessage, done: () => void): void {
  let bytes = 0;
  const stop = (): void => {
    clearTimeout(overdue);
    body.off('data', count).off('end', stop).off('close', stop);
    done();
  };
  const count = (chunk: Buffer): void => {
    bytes += chunk.length;
    if (bytes > DRAIN.bytesMax) stop();
  };
  const overdue = setTimeout(stop, DRAIN.ms);
  body.on('data', count).once('end', stop).once('close', stop);
}

const BROKEN: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: 'its target and headers are over 16 KiB',
  ERR_HTTP_REQUEST_TIMEOUT: 'it did not arrive in time',
};

/** For what never became a request: not HTTP, headers too large, or not sent in time. */
export function answerBrokenConnection(error: { readonly code?: string }, socket: Socket): void {
  // A failed handshake can carry no answer either.
  if (error.code === 'ECONNRESET' || error.code?.startsWith('ERR_SSL') || !socket.writable) {
    socket.destroy();
    return;
  }
  const reason = BROKEN[error.code ?? ''] ?? 'it is not HTTP/1.1';
  const problem = new HyphaError('E_REQUEST', `cannot read the request: ${reason}`);
  const { status, headers, body } = problemReply(problem);
  const lines = Object.entries({
    ...headers,
    'content-length': String(body.length),
    connection: 'close',
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} Bad Request\r\n${lines.join('')}\r\n${body.toString()}`);
}
