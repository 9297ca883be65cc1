import { HyphaError, type RunView, runIdOf } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';

/**
 * A run's id is the hash of envelope digest and node, so it says whether what is told is of it. Throws
 * `E_CONFLICT` when it is not.
 */
export function assertIsRun(
  { node, envelopeDigest }: Pick<RunView, 'node' | 'envelopeDigest'>,
  run: string,
): void {
  if (runIdOf(nodeVerifier, envelopeDigest, node) === run) return;
  throw new HyphaError('E_CONFLICT', `${run} is not of ${envelopeDigest} on ${node}`, {
    hint: 'do not believe this coordinator; ask the node itself: --via node',
  });
}
