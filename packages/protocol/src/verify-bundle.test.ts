import { describe, expect, test } from 'vitest';
import { change, createFleet, enrolmentOf, keyOf, NOW, scriptOf } from '../test/fleet.ts';
import { bundleOf } from '../test/run.ts';
import {
  type BundleCheck,
  base64,
  type Envelope,
  fromBase64,
  fromUtf8,
  type JournalBody,
  signAdmission,
  utf8,
  verifyBundle,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const fleet = createFleet();
const { genesisHash } = fleet.authority;
const good = bundleOf(fleet);
const LEFTOVER = { rid: 'a'.repeat(26), kind: 'volume', name: 'data', reason: 'busy' };
const verdictOf = (bundle: unknown) => verifyBundle(nodeVerifier, { bundle, genesisHash });
const failureOf = (bundle: unknown) => {
  const { failure } = verdictOf(bundle);
  return failure === null ? 'holds' : `${failure.check} ${failure.code}`;
};
/** The bundle with one body of its journal replaced, chained anew. */
const withBody = <T extends JournalBody['type']>(
  type: T,
  changed: Partial<Extract<JournalBody, { type: T }>>,
) =>
  bundleOf(fleet, {
    bodies: (bodies) =>
      bodies.map((body) => (body.type === type ? ({ ...body, ...changed } as JournalBody) : body)),
  });

test('a whole bundle holds, and every check says so in a sentence', () => {
  const verdict = verdictOf(good);
  expect(verdict.failure).toBeNull();
  expect(verdict.holds).toBe(true);
  expect(verdict.receipt?.state).toBe('succeeded');
  expect(verdict.checks).toEqual([
    'the bundle is whole and has 6 journal events',
    'the genesis is the pinned one, signed by 1 or more of its 1 root keys',
    expect.stringMatching(
      /^the authority chain is unbroken from there to update 2 \([0-9a-f]{12}…\)$/,
    ),
    'the admin ada admitted a node as edge-1',
    expect.stringMatching(
      /^node node_[a-z2-7]{32} enrolled under that admission with its own key$/,
    ),
    expect.stringMatching(
      /^olivia signed revision rev_[-0-9a-f]{36} of default\/web within scope, addressed to this node$/,
    ),
    expect.stringMatching(/^envelope and node make the run run_[a-z2-7]{26}$/),
    'the 6 journal events form one unbroken chain',
    'the journal starts with accepting exactly this envelope, at 2026-01-01T00:00:00.000Z, while it and its keys were valid',
    'receipt 1 is signed by the key the node enrolled with',
    'the receipt binds envelope, journal head and output: succeeded after 1 step',
  ]);
});

test('survives being written down and read back', () => {
  expect(failureOf(JSON.parse(JSON.stringify(good)))).toBe('holds');
});

test('a run that failed before its commit holds without an output', () => {
  const failed = bundleOf(fleet, {
    bodies: (bodies) =>
      bodies.flatMap((body): JournalBody[] => {
        if (body.type === 'committed') return [];
        return body.type === 'finished' ? [{ ...body, state: 'failed', undone: 1 }] : [body];
      }),
  });
  expect(failureOf(failed)).toBe('holds');
  expect(verdictOf(failed).receipt).toMatchObject({ state: 'failed', undone: 1 });
});

test('keys revoked after the run do not undo its proof', () => {
  const revokeAll = ['operator', 'admin'].map((name) => keyOf(name).keyid);
  const later = revokeAll.reduce(
    (authority, keyid) => change(authority, { type: 'revoke', keyid, reason: '' }, [fleet.root]),
    fleet.authority,
  );
  expect(failureOf({ ...good, authority: later.updates })).toBe('holds');
});

test('a key revoked before the run does', () => {
  const revoke = { type: 'revoke', keyid: fleet.operator.keyid, reason: '' } as const;
  const authority = change(fleet.authority, revoke, [fleet.root]);
  const accepted = withBody('accepted', { authoritySeq: authority.seq });
  expect(failureOf({ ...accepted, authority: authority.updates })).toBe('submission E_KEY_REVOKED');
});

test('a bundle that withholds the authority up to the run does not hold', () => {
  const accepted = withBody('accepted', { authoritySeq: 3 });
  expect(failureOf(accepted)).toBe('submission E_STALE_VIEW');
});

describe('the first thing that does not hold is named', () => {
  const changed = (envelope: Envelope, from: string, to: string): Envelope => {
    const text = fromUtf8(fromBase64(envelope.payload));
    expect(text).toContain(from);
    return { ...envelope, payload: base64(utf8(text.replace(from, to))) };
  };
  const otherFleet = {
    ...fleet,
    node: keyOf('other node'),
  };
  const cases: readonly (readonly [string, unknown, `${BundleCheck} ${string}`])[] = [
    ['no bundle', { v: 1 }, 'bundle E_PAYLOAD'],
    ['an empty journal', { ...good, journal: [] }, 'journal E_CONFLICT'],
    [
      'a changed genesis',
      { ...good, genesis: changed(good.genesis, '"threshold":1', '"threshold":2') },
      'genesis E_AUTHORITY',
    ],
    [
      'a missing authority update',
      { ...good, authority: good.authority.slice(1) },
      'authority E_AUTHORITY',
    ],
    [
      'a changed authority update',
      { ...good, authority: good.authority.map((update) => changed(update, '"seq":', '"seq": ')) },
      'authority E_SIG_INVALID',
    ],
    [
      'a changed admission',
      { ...good, admission: changed(good.admission, 'edge-1', 'edge-2') },
      'admission E_SIG_INVALID',
    ],
    [
      'a changed enrolment',
      { ...good, enrolment: changed(good.enrolment, '"cpus":4', '"cpus":8') },
      'enrolment E_SIG_INVALID',
    ],
    [
      'another node’s enrolment',
      { ...good, enrolment: enrolmentOf(otherFleet).enrolment },
      'submission E_AUDIENCE',
    ],
    [
      'a changed submission',
      { ...good, submission: changed(good.submission, 'world', 'moon!') },
      'submission E_SIG_INVALID',
    ],
    [
      'another submission',
      { ...good, submission: scriptOf(fleet, { seed: 'other' }) },
      'journal E_CONFLICT',
    ],
    [
      'a changed journal event',
      { ...good, journal: good.journal.map((event) => ({ ...event, at: event.at + 1 })) },
      'journal E_CONFLICT',
    ],
    [
      'a journal cut at its end',
      { ...good, journal: good.journal.slice(0, -1) },
      'journal E_CONFLICT',
    ],
    [
      'a journal cut at its start',
      { ...good, journal: good.journal.slice(1) },
      'journal E_CONFLICT',
    ],
    [
      'two events swapped',
      { ...good, journal: good.journal.toSpliced(1, 2, ...good.journal.slice(1, 3).reverse()) },
      'journal E_CONFLICT',
    ],
    [
      'a journal of another generation',
      withBody('accepted', { generation: 2 }),
      'accepted E_CONFLICT',
    ],
    [
      'a journal of other signers',
      withBody('accepted', { keyids: [fleet.admin.keyid] }),
      'accepted E_CONFLICT',
    ],
    [
      'a receipt by another key',
      bundleOf(fleet, { receiptSigner: keyOf('other node') }),
      'receipt E_UNKNOWN_KEY',
    ],
    [
      'a changed receipt',
      { ...good, receipt: changed(good.receipt, '"steps":1', '"steps":2') },
      'receipt E_SIG_INVALID',
    ],
    [
      'a receipt of another run',
      bundleOf(fleet, { receipt: { run: `run_${'a'.repeat(26)}` } }),
      'receipt E_CONFLICT',
    ],
    [
      'a receipt of another journal',
      bundleOf(fleet, { receipt: { journalHead: '1'.repeat(64) } }),
      'binding E_CONFLICT',
    ],
    [
      'a receipt of another state',
      bundleOf(fleet, { receipt: { state: 'failed' } }),
      'binding E_CONFLICT',
    ],
    [
      'a receipt of another output',
      bundleOf(fleet, { receipt: { outputSha256: '1'.repeat(64) } }),
      'binding E_CONFLICT',
    ],
    ['a receipt of more steps', bundleOf(fleet, { receipt: { steps: 2 } }), 'binding E_CONFLICT'],
    [
      'a receipt of other undone steps',
      bundleOf(fleet, { receipt: { undone: 1 } }),
      'binding E_CONFLICT',
    ],
    [
      'an output that is not what its hash says',
      withBody('committed', { output: '{}' }),
      'binding E_CONFLICT',
    ],
    [
      'leftovers the receipt hides',
      bundleOf(fleet, {
        bodies: (bodies) =>
          bodies.map((body) =>
            body.type === 'finished' ? { ...body, leftovers: [LEFTOVER] } : body,
          ),
        receipt: { leftovers: [{ ...LEFTOVER, name: 'other' }] },
      }),
      'binding E_CONFLICT',
    ],
  ];

  test.for(cases)('%s', ([, bundle, expected]) => {
    expect(failureOf(bundle)).toBe(expected);
  });

  test('an enrolment under another admission than the one shown', () => {
    const other = signAdmission(
      {
        v: 1,
        tokenHash: '0'.repeat(64),
        name: 'edge-2',
        realms: ['default'],
        labels: {},
        iat: NOW,
        exp: NOW + 60,
      },
      fleet.admin,
    );
    expect(failureOf({ ...good, admission: other })).toBe('enrolment E_CONFLICT');
  });
});

test('a bundle of another fleet does not hold under this pin', () => {
  const verdict = verifyBundle(nodeVerifier, { bundle: good, genesisHash: '0'.repeat(64) });
  expect(verdict.failure).toMatchObject({ check: 'genesis', code: 'E_AUTHORITY' });
  expect(verdict.checks).toHaveLength(1);
  expect(verdict.receipt).toBeNull();
});
