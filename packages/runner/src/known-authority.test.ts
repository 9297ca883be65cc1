import { nodeVerifier } from '@hypha/protocol/node';
import { admitNode, createFleet, signUpdate } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { KnownAuthority } from './known-authority.ts';

const revocation = (fleet: ReturnType<typeof createFleet>) =>
  fleet.authority.apply(
    signUpdate(
      fleet.authority,
      { type: 'revoke', keyid: fleet.operator.keyid, reason: 'left' },
      fleet.roots,
    ),
  );

test('follows a chain as it grows', () => {
  const fleet = createFleet();
  const known = new KnownAuthority(nodeVerifier);
  expect(known.follow(fleet.authority.updates).head).toBe(fleet.authority.head);
  const revoked = revocation(fleet);
  expect(known.follow(revoked.updates).findKey(fleet.operator.keyid)?.status).toBe('revoked');
});

test('takes no revocation back for a chain that ends earlier', () => {
  const fleet = createFleet();
  const known = new KnownAuthority(nodeVerifier);
  known.follow(revocation(fleet).updates);
  const status = known.follow(fleet.authority.updates).findKey(fleet.operator.keyid)?.status;
  expect(status).toBe('revoked');
});

test('refuses a fork and the chain of another fleet, and goes on from what it knew', () => {
  const fleet = createFleet();
  const known = new KnownAuthority(nodeVerifier);
  const revoked = revocation(fleet);
  known.follow(revoked.updates);
  const fork = fleet.authority.apply(
    signUpdate(
      fleet.authority,
      { type: 'revoke-node', node: admitNode(fleet).id, reason: '' },
      fleet.roots,
    ),
  );
  expect(() => known.follow(fork.updates)).toThrow(
    expect.objectContaining({ code: 'E_AUTHORITY' }),
  );
  expect(() => known.follow(createFleet().authority.updates)).toThrow();
  expect(known.follow(fleet.authority.updates).head).toBe(revoked.head);
});

test('verifies nothing twice', () => {
  const fleet = createFleet();
  let verified = 0;
  const known = new KnownAuthority({
    ...nodeVerifier,
    verifyEd25519: (...input) => {
      verified++;
      return nodeVerifier.verifyEd25519(...input);
    },
  });
  known.follow(fleet.authority.updates);
  expect(verified).toBe(fleet.authority.updates.length);
  known.follow(fleet.authority.updates);
  expect(verified).toBe(fleet.authority.updates.length);
});
