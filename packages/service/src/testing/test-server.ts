/** A server with one route of each kind, and clients of it. */
import { randomBytes } from 'node:crypto';
import { HyphaClient } from '@hypha/client';
import { nodeIdOf, type Signer } from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { z } from 'zod';
import { createLogger, createServer, type HyphaServer, pageQuery } from '../index.ts';

export interface TestServer extends AsyncDisposable {
  readonly url: string;
  readonly server: HyphaServer;
  /** Its key is known. */
  readonly signer: Signer;
  readonly nodeId: string;
  clientOf(signer?: Signer, clockOffsetMs?: number): HyphaClient;
}

export const Echo = z.object({
  a: z.int().optional(),
  id: z.string().optional(),
  limit: z.int(),
  keyid: z.string().nullable(),
});

export async function startTestServer(add?: (server: HyphaServer) => void): Promise<TestServer> {
  const { signer } = generateKey();
  const server = createServer({
    name: 'test',
    version: '1',
    log: createLogger({ name: 'test', level: 'silent' }),
    findKey: (keyid) => (keyid === signer.keyid ? signer.publicKey : undefined),
  });
  const query = z.strictObject({ ...pageQuery });
  server.route({
    method: 'POST',
    path: '/v1/nodes/:id/echo',
    auth: 'node',
    summary: 'Echo.',
    params: z.strictObject({ id: z.string() }),
    query,
    body: z.strictObject({ a: z.int() }),
    bodyBytesMax: 1000,
    answer: Echo,
    status: 202,
    handle: ({ params, body, query: { limit }, caller }) => {
      return { ...params, ...body, limit, keyid: caller?.keyid ?? null };
    },
  });
  for (const auth of ['read', 'service', 'public'] as const) {
    server.route({
      method: 'GET',
      path: `/v1/${auth}`,
      auth,
      summary: auth,
      query,
      answer: Echo,
      handle: ({ query: { limit }, caller }) => ({ limit, keyid: caller?.keyid ?? null }),
    });
  }
  add?.(server);
  const url = await server.listen({ host: '127.0.0.1', port: 0 });
  const clients: HyphaClient[] = [];
  return {
    url,
    server,
    signer,
    nodeId: nodeIdOf(nodeVerifier, signer.publicKey),
    clientOf: (by, clockOffsetMs = 0) => {
      const client = new HyphaClient({
        baseUrl: url,
        ...(by === undefined ? {} : { signer: by }),
        clock: {
          nowMs: () => Date.now() + clockOffsetMs,
          nonce: () => randomBytes(16).toString('base64url'),
          jitterMs: () => 0,
        },
      });
      clients.push(client);
      return client;
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(clients.map((client) => client.close()));
      await server.close();
    },
  };
}
