import { HyphaError } from '@hypha/protocol';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Registry } from 'prom-client';
import { z } from 'zod';
import { type DescribedRoute, describeApi } from './open-api.ts';
import { nameOf } from './request-reader.ts';
import type { HyphaServer, ServerOptions } from './server.ts';

const METRICS_PATH = '/metrics';
const OPEN_API_PATH = '/openapi.json';

/** `/healthz` and `/readyz`. */
export function serveStatus(server: HyphaServer, { checkReady }: ServerOptions): void {
  const status = z.object({ status: z.literal('ok') });
  server.route({
    method: 'GET',
    path: '/healthz',
    auth: 'public',
    summary: 'The process answers.',
    answer: status,
    handle: () => ({ status: 'ok' as const }),
  });
  server.route({
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

/** `/metrics`, and `/openapi.json` of the routes there are when it is first asked for. */
export function serveDocuments(
  server: FastifyInstance,
  registry: Registry,
  api: {
    readonly title: string;
    readonly version: string;
    readonly routes: readonly DescribedRoute[];
  },
): void {
  server.get(METRICS_PATH, async (_request, reply) => {
    return reply.header('content-type', registry.contentType).send(await registry.metrics());
  });
  let document: Buffer | undefined;
  server.get(OPEN_API_PATH, async (_request, reply) => {
    const { routes, ...info } = api;
    document ??= jsonBytes(describeApi(info, routes));
    return reply.header('content-type', 'application/json').send(document);
  });
}

/** RFC 9110 §15.5.6: a path that is served under other methods says so. After all routes were added. */
export function refuseOtherMethods(
  server: FastifyInstance,
  routes: readonly Pick<DescribedRoute, 'method' | 'path'>[],
): void {
  const documents = [METRICS_PATH, OPEN_API_PATH].map((path) => ({ method: 'GET', path }) as const);
  const served = Map.groupBy([...routes, ...documents], ({ path }) => path);
  for (const [url, those] of served) {
    const allowed = those.map(({ method }) => method);
    server.route({
      method: server.supportedMethods.filter((method) => allowed.every((each) => each !== method)),
      url,
      onRequest: (request, _reply, done) => done(otherMethod(request, allowed)),
      // Never reached.
      handler: async () => undefined,
    });
  }
}

function otherMethod(request: FastifyRequest, allow: readonly string[]): HyphaError {
  return new HyphaError('E_METHOD', `no ${nameOf(request)} here, only ${allow.join(', ')}`, {
    details: { allow },
  });
}

/** Bytes, because Fastify adds a charset parameter to text, and JSON has none (RFC 8259 §11). */
export function jsonBytes(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
