import {
  base64,
  LogCheckpoint,
  LogConsistency,
  LogInclusion,
  LogKey,
  Sha256Hex,
} from '@hypha/protocol';
import { type HyphaServer, queryInt } from '@hypha/service';
import { z } from 'zod';
import type { Checkpoints } from './checkpoints.ts';
import type { LogTree } from './log-tree.ts';

export interface LogParts {
  readonly checkpoints: Checkpoints;
  readonly tree: LogTree;
}

const TreeSize = queryInt({ min: 1, max: Number.MAX_SAFE_INTEGER });

const InclusionQuery = z
  .strictObject({
    digest: Sha256Hex.optional(),
    index: queryInt({ min: 0, max: Number.MAX_SAFE_INTEGER }).optional(),
    size: TreeSize.optional(),
  })
  .refine(({ digest, index }) => (digest === undefined) !== (index === undefined), {
    message: 'exactly one of digest and index says which entry',
  });

/** What makes the log checkable by anybody: signed heads and proofs (design §9). */
export function serveLog(server: HyphaServer, { checkpoints, tree }: LogParts): void {
  server.route({
    method: 'GET',
    path: '/v1/log/key',
    auth: 'public',
    summary: 'The key that signs checkpoints here, for the authority to name.',
    answer: LogKey,
    handle: () => {
      const { publicKey, keyid } = checkpoints.key;
      return { publicKey: base64(publicKey), keyid };
    },
  });
  server.route({
    method: 'GET',
    path: '/v1/log/checkpoint',
    auth: 'public',
    summary: 'The newest signed head of the log, as a C2SP note.',
    answer: LogCheckpoint,
    handle: async () => ({ checkpoint: await checkpoints.newest() }),
  });
  server.route({
    method: 'GET',
    path: '/v1/log/inclusion',
    auth: 'public',
    summary:
      'Proof that an entry is in the log of `size` entries; of all there are without `size`.',
    query: InclusionQuery,
    answer: LogInclusion,
    handle: ({ query }) => tree.inclusion(query),
  });
  server.route({
    method: 'GET',
    path: '/v1/log/consistency',
    auth: 'public',
    summary: 'Proof that the log of `to` entries extends the one of `from`.',
    query: z.strictObject({ from: TreeSize, to: TreeSize }),
    answer: LogConsistency,
    handle: ({ query }) => tree.consistency(query.from, query.to),
  });
}
