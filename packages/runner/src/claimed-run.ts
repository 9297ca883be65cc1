import type { RunGrant } from '@hypha/engine';
import type { ClaimAnswer } from '@hypha/journal/client';
import {
  HyphaError,
  openEnvelope,
  parseJsonAs,
  runIdOf,
  ScriptPayload,
  type Verifier,
  verifyScript,
} from '@hypha/protocol';
import type { KnownAuthority } from './known-authority.ts';

interface ClaimChecks {
  readonly verifier: Verifier;
  readonly authority: KnownAuthority;
  /** Name of this runner process. */
  readonly runner: string;
}

export interface ClaimedRun {
  readonly grant: RunGrant;
  /** Set when the envelope does not verify any more: the run goes no way but back (design §8). */
  readonly refusal: HyphaError | undefined;
}

/**
 * What a claim entitles this runner to. The envelope is verified here once more, from the authority chain
 * itself: neither the queue nor the record of an admission is believed (G1). Throws `E_INTERNAL` when the
 * envelope is not that of the run at all, and the codes of reading it: then there is nothing to go by.
 */
export function openClaim(claim: ClaimAnswer, checks: ClaimChecks): ClaimedRun {
  const { verifier, runner } = checks;
  const { run, node, epoch, bootId, envelope } = claim;
  const { committed, remains, secrets, expectedPlan } = claim;
  const opened = openEnvelope(verifier, envelope, 'script');
  if (runIdOf(verifier, opened.digest, node.id) !== run) {
    throw new HyphaError(
      'E_INTERNAL',
      `the journal's envelope ${opened.digest} is not that of ${run}`,
    );
  }
  const payload = parseJsonAs(ScriptPayload, opened.payload, {
    code: 'E_PAYLOAD',
    what: `the payload of ${run}`,
    integersOnly: true,
  });
  const known = { committed, remains, secrets, expectedPlan };
  const grant = { run, epoch, payload, node, runner, bootId, ...known };
  return { grant, refusal: findRefusal(claim, checks) };
}

function findRefusal(
  claim: ClaimAnswer,
  { verifier, authority }: ClaimChecks,
): HyphaError | undefined {
  try {
    verifyScript(verifier, {
      envelope: claim.envelope,
      authority: authority.follow(claim.authority),
      profile: 'execute',
      // This profile reads no clock (design §8).
      nowSeconds: 0,
      node: claim.node,
    });
    return undefined;
  } catch (error) {
    if (error instanceof HyphaError) return error;
    throw error;
  }
}
