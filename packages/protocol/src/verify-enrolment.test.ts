import { describe, expect, test } from 'vitest';
import { change, createFleet, enrolmentOf, grantOf, keyOf, NOW, refusalOf } from '../test/fleet.ts';
import {
  base64,
  base64url,
  type Grant,
  keyIdOf,
  nodeIdOf,
  verifyAdmission,
  verifyEnrolment,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const fleet = createFleet();
const accept = { profile: 'accept', nowSeconds: NOW + 1 } as const;
const audit = { profile: 'audit' } as const;

/** A fleet whose admin has this grant. */
function fleetWithAdmin(grant: Partial<Grant>) {
  const admin = keyOf('other-admin');
  const granted = grantOf(admin, { name: 'other', role: 'admin', realms: ['*'], ...grant });
  const authority = change(fleet.authority, { type: 'grant', grant: granted }, [fleet.root]);
  return { ...fleet, admin, authority };
}

describe('an admission', () => {
  test('is good when an admin of its realms signed it', () => {
    const { admission } = enrolmentOf(fleet);
    const { payload, grant } = verifyAdmission(nodeVerifier, {
      envelope: admission,
      authority: fleet.authority,
      ...accept,
    });
    expect(payload).toMatchObject({ name: 'edge-1', realms: ['default'] });
    expect(grant.name).toBe('ada');
  });

  test('of a realm the admin has not is E_SCOPE', () => {
    const other = fleetWithAdmin({ realms: ['default'] });
    const { admission: envelope } = enrolmentOf(other, { realms: ['default', 'lab'] });
    const refusal = refusalOf(() =>
      verifyAdmission(nodeVerifier, { envelope, authority: other.authority, ...accept }),
    );
    expect(refusal).toEqual({ code: 'E_SCOPE', path: 'realms' });
  });

  test('by an operator is E_SCOPE', () => {
    const { admission: envelope } = enrolmentOf(fleet, { admittedBy: fleet.operator });
    const { authority } = fleet;
    expect(
      refusalOf(() => verifyAdmission(nodeVerifier, { envelope, authority, ...accept })).code,
    ).toBe('E_SCOPE');
  });

  test('by an unknown key is E_UNKNOWN_KEY', () => {
    const { admission: envelope } = enrolmentOf(fleet, { admittedBy: keyOf('stranger') });
    const { authority } = fleet;
    expect(
      refusalOf(() => verifyAdmission(nodeVerifier, { envelope, authority, ...accept })).code,
    ).toBe('E_UNKNOWN_KEY');
  });

  test('by an admin revoked since lets nobody in, and stays good in an audit', () => {
    const { admission: envelope } = enrolmentOf(fleet);
    const revoke = { type: 'revoke', keyid: fleet.admin.keyid, reason: '' } as const;
    const authority = change(fleet.authority, revoke, [fleet.root]);
    expect(
      refusalOf(() => verifyAdmission(nodeVerifier, { envelope, authority, ...accept })).code,
    ).toBe('E_KEY_REVOKED');
    expect(verifyAdmission(nodeVerifier, { envelope, authority, ...audit }).grant.name).toBe('ada');
  });

  test('is E_TOKEN from its exp on', () => {
    const { admission: envelope } = enrolmentOf(fleet);
    const at = (nowSeconds: number) =>
      refusalOf(() =>
        verifyAdmission(nodeVerifier, {
          envelope,
          authority: fleet.authority,
          profile: 'accept',
          nowSeconds,
        }),
      ).code;
    expect(at(NOW + 3599)).toBe('none');
    expect(at(NOW + 3600)).toBe('E_TOKEN');
    expect(at(NOW - 61)).toBe('E_NOT_YET');
  });

  test('dated outside its admin’s validity is E_KEY_EXPIRED, also in an audit', () => {
    const other = fleetWithAdmin({ notBefore: NOW + 10 });
    const { admission: envelope } = enrolmentOf(other);
    const { authority } = other;
    expect(
      refusalOf(() => verifyAdmission(nodeVerifier, { envelope, authority, ...audit })),
    ).toEqual({ code: 'E_KEY_EXPIRED', path: 'iat' });
  });
});

describe('an enrolment', () => {
  const { enrolment, challenge } = enrolmentOf(fleet);
  const refused = (
    options: Parameters<typeof enrolmentOf>[1],
    authority = fleet.authority,
    from = fleet,
  ) =>
    refusalOf(() =>
      verifyEnrolment(nodeVerifier, {
        envelope: enrolmentOf(from, options).enrolment,
        authority,
        challenge,
        ...accept,
      }),
    );

  test('proves the node id, its key and its admission', () => {
    const { authority } = fleet;
    const verified = verifyEnrolment(nodeVerifier, {
      envelope: enrolment,
      authority,
      challenge,
      ...accept,
    });
    expect(verified.node).toBe(nodeIdOf(nodeVerifier, fleet.node.publicKey));
    expect(verified.publicKey).toEqual(fleet.node.publicKey);
    expect(verified.admission.payload.name).toBe('edge-1');
  });

  test('that answers another challenge is E_CHALLENGE', () => {
    const other = base64url(new Uint8Array(16));
    expect(refused({ payload: { challenge: other } })).toEqual({
      code: 'E_CHALLENGE',
      path: 'challenge',
    });
  });

  test('with another token is E_TOKEN', () => {
    const token = base64url(new Uint8Array(32));
    expect(refused({ payload: { token } })).toEqual({ code: 'E_TOKEN', path: 'token' });
    expect(refused({ payload: { token: '*' } })).toEqual({ code: 'E_TOKEN', path: 'token' });
  });

  test('under an admission that had expired when it was made is E_TOKEN', () => {
    expect(refused({ payload: { iat: NOW + 3600 } })).toEqual({ code: 'E_TOKEN', path: 'iat' });
  });

  test('of a key whose holder did not sign it is E_UNKNOWN_KEY', () => {
    const publicKey = base64(keyOf('victim').publicKey);
    expect(refused({ payload: { publicKey } }).code).toBe('E_UNKNOWN_KEY');
  });

  test('signed by another key under the name of its own is E_SIG_INVALID', () => {
    const publicKey = base64(keyOf('victim').publicKey);
    const signer = { ...fleet.node, keyid: keyOf('victim').keyid };
    expect(refused({ signer, payload: { publicKey } }).code).toBe('E_SIG_INVALID');
  });

  test('of a small-order key is E_WEAK_KEY', () => {
    const publicKey = new Uint8Array(32);
    const signer = { ...fleet.node, publicKey, keyid: keyIdOf(nodeVerifier, publicKey) };
    expect(refused({ signer }).code).toBe('E_WEAK_KEY');
  });

  test('of a key with a role in the authority is E_CONFLICT', () => {
    expect(refused({ signer: fleet.operator }).code).toBe('E_CONFLICT');
    expect(refused({ signer: fleet.root }).code).toBe('E_CONFLICT');
  });

  test('of a revoked node is E_KEY_REVOKED', () => {
    const revoke = { type: 'revoke-node', node: fleet.nodeId, reason: '' } as const;
    const authority = change(fleet.authority, revoke, [fleet.admin]);
    expect(refused({}, authority).code).toBe('E_KEY_REVOKED');
  });

  test('under the admission of an admin bound to other nodes is E_SCOPE', () => {
    const other = fleetWithAdmin({ nodes: [`node_${'b'.repeat(32)}`] });
    expect(refused({}, other.authority, other)).toEqual({ code: 'E_SCOPE', path: 'admission' });
    const own = fleetWithAdmin({ nodes: [fleet.nodeId] });
    expect(refused({}, own.authority, own).code).toBe('none');
  });
});
