import type { Socket } from 'node:net';
import { HyphaError, isHyphaError, toProblem } from '@hypha/protocol';
import type { FastifyError } from 'fastify';

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
      ...(problem.status === 401 ? { 'www-authenticate': 'Signature' } : {}),
    },
    body: Buffer.from(JSON.stringify(problem)),
  };
}

/** For what never became a request: not HTTP, headers too large, or not sent in time. */
export function answerBrokenConnection(error: { readonly code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const problem = new HyphaError('E_REQUEST', 'cannot read the request: not HTTP/1.1, or too slow');
  const { status, headers, body } = problemReply(problem);
  const lines = Object.entries({
    ...headers,
    'content-length': String(body.length),
    connection: 'close',
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} Bad Request\r\n${lines.join('')}\r\n${body.toString()}`);
}
