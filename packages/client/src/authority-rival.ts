import {
  type Authority,
  type Envelope,
  envelopeDigest,
  isHyphaError,
  type Verifier,
} from '@hypha/protocol';
import { z } from 'zod';
import type { Evidence } from './evidence-folder.ts';

/** Details of the refusal of an update that is on another branch. */
const Fork = z.object({ reason: z.literal('fork'), seq: z.int(), digest: z.string() });

/** Whether updates were refused because they are on another branch than what is known. */
export function isAuthorityFork(error: unknown): boolean {
  return isHyphaError(error, 'E_AUTHORITY') && Fork.safeParse(error.details).success;
}

/**
 * The two updates that have one number, when `error` refused one of `updates` for it. Anybody can make up an
 * update: only one that would have been valid in its place proves something.
 */
export function findRivals(
  verifier: Verifier,
  known: Authority,
  updates: readonly Envelope[],
  error: unknown,
): Evidence | undefined {
  const fork = isHyphaError(error, 'E_AUTHORITY') ? Fork.safeParse(error.details).data : undefined;
  if (fork === undefined || fork.seq === 0) return undefined;
  const { seq, digest } = fork;
  const theirs = updates.find((update) => envelopeDigest(verifier, update, 'authority') === digest);
  const ours = known.updates[seq];
  if (theirs === undefined || ours === undefined) return undefined;
  try {
    known.at(seq - 1).apply(theirs);
  } catch {
    return undefined;
  }
  const reason = `two authority updates have the number ${seq}`;
  return { kind: 'authority-fork', reason, ours, theirs };
}
