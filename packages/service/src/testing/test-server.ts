/** A server with one route of each kind, and clients of it. */
import { randomBytes } from 'node:crypto';
import { HyphaClient } from '@hypha/client';
import { nodeIdOf, type Signer } from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { z } from 'zod';
import {
  type CallerKey,
  type CallerRole,
  createLogger,
  createServer,
  type HyphaServer,
  type ListenerConfig,
  pageQuery,
  READERS,
} from '../index.ts';

export interface TestServer extends AsyncDisposable {
  readonly url: string;
  readonly server: HyphaServer;
  /** A node's. */
  readonly signer: Signer;
  /** Of realm `a`. */
  readonly viewer: Signer;
  /** Keys that may sign, by keyid; a test may change them. */
  readonly keys: Map<string, CallerKey>;
  /** How often a key was looked for. */
  lookups(): number;
  readonly nodeId: string;
  clientOf(signer?: Signer, clockOffsetMs?: number): HyphaClient;
}

export const Echo = z.object({
  a: z.int().optional(),
  id: z.string().optional(),
  limit: z.int(),
  keyid: z.string().nullable(),
});

export interface TestServerOptions {
  /** How long ago by its own clock it was started; default: an hour. */
  readonly startedAgoMs?: number;
  readonly listener?: Partial<ListenerConfig>;
  readonly streamCheckMs?: number;
}

export async function startTestServer(
  add?: (server: HyphaServer) => void,
  { startedAgoMs = 3_600_000, ...options }: TestServerOptions = {},
): Promise<TestServer> {
  let behindMs = startedAgoMs;
  let lookups = 0;
  const { signer } = generateKey();
  const viewer = generateKey().signer;
  const known = (by: Signer, role: CallerRole, realms: readonly string[]): [string, CallerKey] => {
    const { keyid, publicKey } = by;
    return [keyid, { publicKey, role, name: role, realms, nodes: ['*'] }];
  };
  const keys = new Map([known(signer, 'node', ['*']), known(viewer, 'viewer', ['a'])]);
  const server = createServer({
    name: 'test',
    version: '1',
    log: createLogger({ name: 'test', level: 'silent' }),
    findKey: (keyid) => {
      lookups++;
      return keys.get(keyid);
    },
    clock: { nowMs: () => Date.now() - behindMs },
    ...options,
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
  const auths = {
    read: { roles: [...READERS, 'node'] },
    service: { roles: ['node'] },
    public: 'public',
  } as const;
  for (const [name, auth] of Object.entries(auths)) {
    server.route({
      method: 'GET',
      path: `/v1/${name}`,
      auth,
      summary: name,
      query,
      answer: Echo,
      handle: ({ query: { limit }, caller }) => ({ limit, keyid: caller?.keyid ?? null }),
    });
  }
  add?.(server);
  const url = await server.listen({ host: '127.0.0.1', port: 0 });
  behindMs = 0;
  const clients: HyphaClient[] = [];
  return {
    url,
    server,
    signer,
    viewer,
    keys,
    lookups: () => lookups,
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
