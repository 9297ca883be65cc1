/** The ways into a fleet that need no join token, and those that follow one (design §8 Enrolment). */
import { describe, expect, test } from 'vitest';
import { change, createFleet, enrolmentOf, FACTS, keyOf, NOW, refusalOf } from '../test/fleet.ts';
import {
  base64,
  type Envelope,
  envelopeDigest,
  nodeIdOf,
  type PayloadInput,
  payloadBytes,
  type Signer,
  signAdmission,
  signEnvelope,
  verifyAdmission,
  verifyEnrolment,
  verifyEnrolStatement,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const fleet = createFleet();
const accept = { profile: 'accept', nowSeconds: NOW + 1 } as const;
const fresh = keyOf('fresh-node');
const freshId = nodeIdOf(nodeVerifier, fresh.publicKey);

/** An admission that names the node it is for. */
function admissionOf(overrides: Partial<PayloadInput<'admission'>> = {}): Envelope {
  const base = {
    v: 1,
    name: 'edge-2',
    realms: ['default'],
    labels: {},
    iat: NOW,
    exp: NOW + 86_400,
  };
  return signAdmission({ ...base, v: 1, node: freshId, ...overrides }, fleet.admin);
}

function statementOf(
  overrides: Partial<PayloadInput<'enrol'>>,
  signers: readonly Signer[] = [fresh],
): Envelope {
  const payload: PayloadInput<'enrol'> = {
    v: 1,
    publicKey: base64(fresh.publicKey),
    sealKey: base64(keyOf('seal').publicKey),
    challenge: 'A'.repeat(22),
    bootId: '00000000-0000-4000-8000-000000000000',
    iat: NOW,
    facts: FACTS,
    ...overrides,
  };
  return signEnvelope('enrol', payloadBytes('enrol', payload), signers);
}

const { authority } = fleet;
const refusedEnrolment = (
  envelope: Envelope,
  more: Partial<Parameters<typeof verifyEnrolment>[1]> = {},
) =>
  refusalOf(() => verifyEnrolment(nodeVerifier, { envelope, authority, ...accept, ...more })).code;

describe('an admission', () => {
  test('is for a token or for one node, and never for both or for none', () => {
    const both = { tokenHash: 'a'.repeat(64) };
    expect(refusalOf(() => admissionOf(both)).code).toBe('E_PAYLOAD');
    expect(refusalOf(() => admissionOf({ node: undefined })).code).toBe('E_PAYLOAD');
  });

  test('by token lasts an hour at most, one by fingerprint as long as its admin says', () => {
    const byToken = (exp: number) =>
      refusalOf(() =>
        verifyAdmission(nodeVerifier, {
          envelope: admissionOf({ node: undefined, tokenHash: 'a'.repeat(64), exp }),
          authority,
          ...accept,
        }),
      );
    expect(byToken(NOW + 3600).code).toBe('none');
    expect(byToken(NOW + 3601)).toEqual({ code: 'E_LIFETIME', path: 'exp' });
    const audited = {
      envelope: admissionOf({ node: undefined, tokenHash: 'a'.repeat(64) }),
      authority,
    };
    expect(
      refusalOf(() => verifyAdmission(nodeVerifier, { ...audited, profile: 'audit' })).code,
    ).toBe('E_LIFETIME');
    const byNode = { envelope: admissionOf(), authority, ...accept };
    expect(verifyAdmission(nodeVerifier, byNode).payload.node).toBe(freshId);
  });
});

describe('a node without a token', () => {
  test('waits as long as no admission names it', () => {
    const request = statementOf({});
    expect(refusedEnrolment(request)).toBe('E_PENDING');
    const statement = verifyEnrolStatement(nodeVerifier, { envelope: request, authority });
    expect(statement.node).toBe(freshId);
  });

  test('is let in by an admission that names its key', () => {
    const envelope = statementOf({ admission: admissionOf() });
    const enrolment = verifyEnrolment(nodeVerifier, { envelope, authority, ...accept });
    expect(enrolment).toMatchObject({ node: freshId, admission: { payload: { name: 'edge-2' } } });
  });

  test('is not let in by the admission of another node', () => {
    const others = admissionOf({ node: fleet.nodeId as typeof freshId });
    expect(refusedEnrolment(statementOf({ admission: others }))).toBe('E_TOKEN');
  });

  test('cannot use the admission of a token it does not hold', () => {
    const { admission } = enrolmentOf(fleet);
    expect(refusedEnrolment(statementOf({ admission }))).toBe('E_TOKEN');
  });
});

describe('a new key in the place of an old one', () => {
  const old = fleet.node;
  const { admission } = enrolmentOf(fleet);
  const { token } = readToken();
  const replaces = fleet.nodeId as typeof freshId;
  const place = (stands: Envelope) => ({
    publicKey: old.publicKey,
    admission: envelopeDigest(nodeVerifier, stands, 'admission'),
  });
  const findReplaced = (node: string) => (node === replaces ? place(admission) : undefined);
  const take = { admission, token, replaces };

  test('needs the signatures of both, also long after the token expired', () => {
    const envelope = statementOf({ ...take, iat: NOW + 86_400 }, [fresh, old]);
    const input = {
      envelope,
      authority,
      findReplaced,
      profile: 'accept',
      nowSeconds: NOW + 86_401,
    } as const;
    expect(verifyEnrolment(nodeVerifier, input)).toMatchObject({
      node: freshId,
      payload: { replaces },
      admission: { payload: { name: 'edge-1' } },
    });
  });

  test.for([
    ['only the new key', [fresh], 'E_SIG_THRESHOLD'],
    ['only the old key', [old], 'E_SIG_THRESHOLD'],
    ['the new key and a stranger', [fresh, keyOf('stranger')], 'E_UNKNOWN_KEY'],
  ] as const)('signed by %s is refused', ([, signers, code]) => {
    expect(refusedEnrolment(statementOf(take, signers), { findReplaced })).toBe(code);
  });

  test('takes no other place than that of the old one', () => {
    const envelope = statementOf(take, [fresh, old]);
    const elsewhere = () => place(admissionOf());
    expect(refusedEnrolment(envelope, { findReplaced: elsewhere })).toBe('E_TOKEN');
    expect(refusedEnrolment(envelope)).toBe('E_UNKNOWN_KEY');
  });

  test('is refused when the old one was revoked', () => {
    const revoke = { type: 'revoke-node', node: fleet.nodeId, reason: 'stolen' } as const;
    const after = change(authority, revoke, [fleet.admin]);
    const envelope = statementOf(take, [fresh, old]);
    expect(refusedEnrolment(envelope, { findReplaced, authority: after })).toBe('E_KEY_REVOKED');
  });

  test('does not count a second signature where nothing is replaced', () => {
    const envelope = statementOf({ admission: admissionOf() }, [fresh, old]);
    expect(refusedEnrolment(envelope, { findReplaced })).toBe('E_UNKNOWN_KEY');
  });

  function readToken(): { readonly token: string } {
    const { enrolment } = enrolmentOf(fleet);
    return JSON.parse(Buffer.from(enrolment.payload, 'base64').toString());
  }
});

test('the key of the ledger cannot enrol as a node', () => {
  const ledgerKey = { type: 'set-ledger-key', publicKey: base64(fresh.publicKey) } as const;
  const after = change(authority, ledgerKey, [fleet.root]);
  const envelope = statementOf({ admission: admissionOf() });
  expect(refusedEnrolment(envelope, { authority: after })).toBe('E_CONFLICT');
});
