/** When a node may have accepted what a bundle shows: by its journal, judged as it was then. */
import { describe, expect, test } from 'vitest';
import { createFleet, type Fleet, NOW, scriptOf } from '../test/fleet.ts';
import { createLoggedFleet } from '../test/proven-bundle.ts';
import { bundleOf } from '../test/run.ts';
import { type BundleVerdict, type JournalBody, type ScriptPayload, verifyBundle } from './index.ts';
import { nodeVerifier } from './node/index.ts';

const fleet = createFleet();

/** The journals of these bundles accept at `NOW`. */
function verdictOf(
  payload: Partial<ScriptPayload>,
  options: { readonly of?: Fleet; readonly authoritySeq?: number } = {},
): BundleVerdict {
  const { of = fleet, authoritySeq } = options;
  const submission = scriptOf(of, { payload });
  const bodies = (all: JournalBody[]) =>
    all.map((body) =>
      body.type === 'accepted' && authoritySeq !== undefined ? { ...body, authoritySeq } : body,
    );
  const bundle = bundleOf(of, { submission, bodies });
  return verifyBundle(nodeVerifier, { bundle, genesisHash: of.authority.genesisHash });
}

function failureOf(...of: Parameters<typeof verdictOf>): string {
  const { failure } = verdictOf(...of);
  return failure === null ? 'holds' : `${failure.check} ${failure.code}`;
}

describe('a run was accepted while its envelope was valid', () => {
  const from = (seconds: number) => ({ iat: seconds, nbf: seconds, exp: NOW + 900 });
  const until = (seconds: number) => ({ iat: NOW - 600, nbf: NOW - 600, exp: seconds });

  test.for([
    ['from the tolerated minute before', from(NOW + 60), 'holds'],
    // The journal is written a moment after the clock was looked at.
    ['until the moment it takes to write it down', until(NOW), 'holds'],
    ['not later', until(NOW - 60), 'accepted E_EXPIRED'],
    ['for a day at most', { ...until(NOW + 900), nbf: NOW - 85_501 }, 'accepted E_LIFETIME'],
  ] as const)('%s', ([, payload, expected]) => {
    expect(failureOf(payload)).toBe(expected);
  });
});

test('a node whose clock was behind accepted by that of the ledger, and the verdict says so', () => {
  const signed = { iat: NOW + 600, nbf: NOW + 600, exp: NOW + 900 };
  const { holds, remarks } = verdictOf(signed);
  expect(holds).toBe(true);
  expect(remarks).toContain('the clock of the node was at least 540 s behind when it accepted');
});

test('a key that had expired by then did not sign anything', () => {
  const expired = createFleet({ notAfter: NOW - 1 });
  expect(failureOf({}, { of: expired })).toBe('accepted E_KEY_EXPIRED');
});

test('the node knew what the signer had seen', () => {
  const logged = createLoggedFleet();
  expect(failureOf({}, { of: logged })).toBe('holds');
  expect(failureOf({}, { of: logged, authoritySeq: 2 })).toBe('accepted E_STALE_VIEW');
});

test('the signer had seen this authority and no other', () => {
  const authority = { seq: 2, head: '0'.repeat(64) };
  expect(failureOf({ authority })).toBe('accepted E_LOG_FORK');
});
