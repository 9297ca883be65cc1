/** Signatures from several places on one envelope: who may, who has, who is missing. */
import {
  type Authority,
  type AuthorityChange,
  base64,
  buildAuthorityPayload,
  type Envelope,
  LIMITS,
  PAYLOAD_TYPES,
  Policy,
  type Signer,
  signAuthority,
  signEnvelope,
  signScript,
  utf8,
} from '@hypha/protocol';
import {
  createFleet,
  createKey,
  grantOf,
  scriptPayloadOf,
  signUpdate,
  type TestKey,
} from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { addSignature, checkSignatures, cosignatureBy } from './cosignature.ts';
import { countSignatures, describeGroup } from './signature-count.ts';
import { readSignedPayload } from './signed-payload.ts';

const fleet = createFleet({ roots: 3, threshold: 2 });
const { roots, admin, operator } = fleet;
const [rootA, rootB, rootC] = roots as readonly [TestKey, TestKey, TestKey];
const bob = createKey();
const visitor = createKey();
const volumesOnly = createKey();
const authority = [
  { type: 'grant', grant: grantOf(bob, { name: 'bob' }) } as const,
  { type: 'grant', grant: grantOf(visitor, { name: 'vera', role: 'viewer' }) } as const,
  { type: 'grant', grant: grantOf(volumesOnly, { name: 'vic', caps: ['volume'] }) } as const,
  {
    type: 'set-policy',
    policy: Policy.parse({ signatures: { default: 2, caps: { container: 3 } } }),
  } as const,
].reduce(
  (state: Authority, change) => state.apply(signUpdate(state, change, [rootA, rootB])),
  fleet.authority,
);
const NOW = Math.floor(Date.now() / 1000);
const NODE = `node_${'a'.repeat(32)}`;
const script = (caps: string[] = []) =>
  signScript(scriptPayloadOf({ authority }, { draft: { nodes: [NODE], caps } }), []);

function sign(envelope: Envelope, ...signers: readonly Signer[]): Envelope {
  const item = readSignedPayload(envelope);
  return signers.reduce(
    (before, signer) => addSignature(before, cosignatureBy(signer, before), item, authority),
    envelope,
  );
}

function missing(envelope: Envelope): readonly string[] | 'complete' {
  const count = countSignatures(envelope, readSignedPayload(envelope), authority);
  return count?.complete === true ? 'complete' : (count?.groups.map(describeGroup) ?? []);
}

const update = (change: AuthorityChange) =>
  signAuthority(buildAuthorityPayload(authority, change, NOW), []);

describe('a script', () => {
  test('is complete at the number of signatures that the policy asks of it', () => {
    const envelope = script(['volume']);
    expect(missing(envelope)).toEqual(['operators: 0 of 2; still 2 of: olivia, bob, vic']);
    expect(missing(sign(envelope, bob))).toEqual([
      'operators: 1 of 2 (bob); still 1 of: olivia, vic',
    ]);
    expect(missing(sign(envelope, bob, operator))).toBe('complete');
  });

  test('needs more for a capability that the policy names', () => {
    const envelope = sign(script(['container']), bob, operator);
    expect(missing(envelope)).toEqual([
      'operators: 2 of 3 (olivia, bob); still 1 of: nobody who could',
    ]);
  });

  test.for([
    ['a key that signed before', bob, 'E_CONFLICT'],
    ['a key that nobody granted anything', createKey(), 'E_UNKNOWN_KEY'],
    ['a viewer', visitor, 'E_SCOPE'],
    ['a root key', rootA, 'E_UNKNOWN_KEY'],
  ] as const)('takes no signature of %s', ([, signer, code]) => {
    const envelope = sign(script(), bob);
    expect(() => sign(envelope, signer)).toThrow(expect.objectContaining({ code }));
  });

  test('takes no signature of a key that may not do all of it', () => {
    expect(() => sign(script(['container']), volumesOnly)).toThrow(
      expect.objectContaining({ code: 'E_SCOPE', where: { path: 'caps.0' } }),
    );
  });

  test('takes no ninth signature', () => {
    const many = Array.from({ length: LIMITS.signaturesMax }, (_, index) => ({
      keyid: `ed25519:${index}`,
      sig: '',
    }));
    const envelope = { ...script(), signatures: many };
    expect(() => sign(envelope, bob)).toThrow(expect.objectContaining({ code: 'E_SIG_FORMAT' }));
  });

  test('takes no signature over other bytes', () => {
    const envelope = script();
    const foreign = cosignatureBy(bob, script());
    const item = readSignedPayload(envelope);
    expect(() => addSignature(envelope, foreign, item, authority)).toThrow(
      expect.objectContaining({ code: 'E_SIG_INVALID' }),
    );
  });

  test('that carries a bad signature is not signed any further', () => {
    const good = sign(script(), bob);
    const [signature] = good.signatures;
    const bad = {
      ...good,
      signatures: [{ keyid: signature?.keyid ?? '', sig: base64(new Uint8Array(64).fill(7)) }],
    };
    expect(() => checkSignatures(bad, readSignedPayload(bad), authority)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^E_SIG_/) }),
    );
  });
});

describe('a change of the authority', () => {
  const newRoots = [createKey(), createKey()];
  const rotate = update({
    type: 'rotate-root',
    rootKeys: newRoots.map(({ publicKey }, index) => ({
      publicKey: base64(publicKey),
      name: `new-${index}`,
    })),
    threshold: 2,
  });

  test('of the roots needs the old threshold and the new one', () => {
    expect(missing(rotate)).toEqual([
      'root keys: 0 of 2; still 2 of: root-0, root-1, root-2',
      'new root keys: 0 of 2; still 2 of: new-0, new-1',
    ]);
    const byOld = sign(rotate, rootA, rootC);
    expect(missing(byOld)).toEqual([
      'root keys: 2 of 2 (root-0, root-2)',
      'new root keys: 0 of 2; still 2 of: new-0, new-1',
    ]);
    expect(missing(sign(byOld, ...newRoots))).toBe('complete');
  });

  test('of the policy takes no admin', () => {
    const envelope = update({ type: 'set-policy', policy: Policy.parse({}) });
    expect(() => sign(envelope, admin)).toThrow(expect.objectContaining({ code: 'E_SCOPE' }));
    expect(missing(sign(envelope, rootB, rootC))).toBe('complete');
  });

  test('that an admin may make takes one admin, the roots, or the key that is revoked', () => {
    const envelope = update({ type: 'revoke', keyid: bob.keyid, reason: 'lost' });
    expect(missing(envelope)).toEqual(['admins: 0 of 1; still 1 of: ada']);
    expect(missing(sign(envelope, admin))).toBe('complete');
    expect(missing(sign(envelope, rootA))).toEqual([
      'root keys: 1 of 2 (root-0); still 1 of: root-1, root-2',
    ]);
    expect(missing(sign(envelope, rootA, rootB))).toBe('complete');
    expect(missing(sign(envelope, bob))).toBe('complete');
  });

  test('that comes too late is refused once it has all signatures', () => {
    const late = signAuthority(
      buildAuthorityPayload(fleet.authority, { type: 'set-policy', policy: Policy.parse({}) }, 1),
      [rootA, rootB],
    );
    expect(() => missing(late)).toThrow(expect.objectContaining({ code: 'E_AUTHORITY' }));
  });
});

test('a genesis needs its own threshold, and no authority to tell it', () => {
  const { genesis } = fleet;
  const item = readSignedPayload(genesis);
  expect(countSignatures(genesis, item, undefined)?.complete).toBe(true);
  const unsigned = { ...genesis, signatures: [] };
  expect(countSignatures(unsigned, item, undefined)?.groups.map(describeGroup)).toEqual([
    'root keys: 0 of 2; still 2 of: root-0, root-1, root-2',
  ]);
});

test.for(['receipt', 'enrol', 'report'] as const)('nobody signs a %s by hand', (kind) => {
  const envelope = signEnvelope(kind, utf8('{}'), []);
  expect(() => readSignedPayload(envelope)).toThrow(
    expect.objectContaining({ code: 'E_PAYLOAD_TYPE' }),
  );
});

test('nobody signs what a receiver would refuse to read', () => {
  const envelope = {
    payloadType: PAYLOAD_TYPES.script,
    payload: base64(utf8('{"v":1,"v":1}')),
    signatures: [],
  };
  expect(() => readSignedPayload(envelope)).toThrow(expect.objectContaining({ code: 'E_PAYLOAD' }));
});
