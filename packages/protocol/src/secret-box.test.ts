import { createHash } from 'node:crypto';
import nacl from 'tweetnacl';
import { describe, expect, test } from 'vitest';
import { base64, fromBase64 } from './encoding.ts';
import { isHyphaError } from './hypha-error.ts';
import {
  openBytes,
  openSecrets,
  SECRET_BYTES_MAX,
  type SecretValues,
  sealBytes,
  sealSecrets,
} from './secret-box.ts';

const CONTEXT = {
  realm: 'default',
  node: `node_${'a'.repeat(32)}`,
  id: 'rev_0193a000-0000-7000-8000-000000000000',
};
const MARKER = 'hunter2-marker';

/** The same bytes in every run of a test. */
function seeded(seed: string) {
  let count = 0;
  return (length: number) => {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; at += 32) {
      const block = createHash('sha256').update(`${seed}/${count++}`).digest();
      bytes.set(block.subarray(0, Math.min(32, length - at)), at);
    }
    return bytes;
  };
}

const node = nacl.box.keyPair.fromSecretKey(seeded('node')(32));
const other = nacl.box.keyPair.fromSecretKey(seeded('other')(32));

function seal(secrets: SecretValues, context = CONTEXT, sealKey = node.publicKey): string {
  return sealSecrets(secrets, { context, sealKey, randomBytes: seeded('box') });
}

function open(box: string, context = CONTEXT, secretKeys = [node.secretKey]): SecretValues {
  return openSecrets(box, { context, secretKeys });
}

/** Every text an error carries, as a log or an answer would show it. */
function textOf(error: unknown): string {
  if (!isHyphaError(error)) return String(error);
  const { message, hint, details, where, cause, stack } = error;
  return JSON.stringify({ message, hint, details, where, stack, cause: String(cause) });
}

function refusalOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect(error).toMatchObject({ code: 'E_SECRET' });
    return textOf(error);
  }
  throw new Error('was not refused');
}

describe('a box of secrets', () => {
  const secrets = { token: MARKER, motd: 'grüß dich\n', stays: null, empty: '' };

  test('opens for its node, with every value as it was', () => {
    expect(open(seal(secrets))).toEqual(secrets);
  });

  test('shows nothing of what is inside', () => {
    const bytes = fromBase64(seal(secrets));
    expect(Buffer.from(bytes).includes(MARKER)).toBe(false);
    expect(Buffer.from(bytes).includes('token')).toBe(false);
  });

  test('is another each time, also for the same values', () => {
    const random = seeded('twice');
    const make = () =>
      sealSecrets(secrets, { context: CONTEXT, sealKey: node.publicKey, randomBytes: random });
    expect(make()).not.toBe(make());
  });

  test('has the layout that another implementation of nacl.box opens', () => {
    const bytes = fromBase64(seal(secrets));
    const opened = nacl.box.open(
      bytes.subarray(56),
      bytes.subarray(32, 56),
      bytes.subarray(0, 32),
      node.secretKey,
    );
    const { id, node: nodeId, realm } = CONTEXT;
    expect(JSON.parse(Buffer.from(opened ?? []).toString())).toEqual({
      v: 1,
      id,
      node: nodeId,
      realm,
      secrets,
    });
  });

  test('opens with the key before, too', () => {
    expect(open(seal(secrets), CONTEXT, [other.secretKey, node.secretKey])).toEqual(secrets);
  });

  test('stays shut for any other key', () => {
    const said = refusalOf(() => open(seal(secrets), CONTEXT, [other.secretKey]));
    expect(said).not.toContain(MARKER);
  });

  test.for([
    ['realm', { ...CONTEXT, realm: 'lab' }],
    ['node', { ...CONTEXT, node: `node_${'b'.repeat(32)}` }],
    ['id', { ...CONTEXT, id: 'rev_0193a000-0000-7000-8000-000000000001' }],
  ] as const)('moved to another %s is refused', ([field, elsewhere]) => {
    const said = refusalOf(() => open(seal(secrets), elsewhere));
    expect(said).toContain(`another ${field}`);
    expect(said).not.toContain(MARKER);
  });

  test('is refused with any one byte flipped', () => {
    const sealed = fromBase64(seal({ token: MARKER }));
    for (let at = 0; at < sealed.length; at++) {
      const changed = Uint8Array.from(sealed);
      changed[at] = (changed[at] ?? 0) ^ 1;
      refusalOf(() => open(base64(changed)));
    }
  });

  test('is refused cut anywhere', () => {
    const sealed = fromBase64(seal({ token: MARKER }));
    for (let length = 0; length < sealed.length; length++) {
      refusalOf(() => open(base64(sealed.subarray(0, length))));
    }
  });

  test.for(['', 'AAAA', 'not base64', `${seal({})} `, seal({}).replace(/=*$/, '===')])(
    'is refused when it is %j',
    (box) => {
      refusalOf(() => open(box));
    },
  );

  test.for([
    ['no JSON', MARKER],
    ['no object', JSON.stringify([MARKER])],
    ['a key twice', `{"v":1,"realm":"default","v":1,"token":"${MARKER}"}`],
    ['a number for a value', JSON.stringify({ v: 1, ...CONTEXT, secrets: { token: 7 } })],
    ['a member nobody knows', JSON.stringify({ v: 1, ...CONTEXT, secrets: {}, [MARKER]: 1 })],
    ['a name that is none', JSON.stringify({ v: 1, ...CONTEXT, secrets: { 'A B': MARKER } })],
    ['another version', JSON.stringify({ v: 2, ...CONTEXT, secrets: {} })],
  ] as const)('with %s inside is refused without quoting it', ([, content]) => {
    const options = { sealKey: node.publicKey, randomBytes: seeded('odd') };
    const box = sealBytes(new TextEncoder().encode(content), options);
    expect(refusalOf(() => open(box))).not.toContain(MARKER);
  });

  test('of a small-order ephemeral key is refused, whose shared key everybody knows', () => {
    const sealed = fromBase64(seal({ token: MARKER }));
    for (const point of [new Uint8Array(32), Uint8Array.from([1, ...new Uint8Array(31)])]) {
      const shared = nacl.box.before(point, node.secretKey);
      const nonce = sealed.subarray(32, 56);
      const forged = nacl.box.after(new TextEncoder().encode('{}'), nonce, shared);
      const box = base64(Uint8Array.from([...point, ...nonce, ...forged]));
      expect(refusalOf(() => openBytes(box, [node.secretKey]))).toContain(
        'not sealed to this node',
      );
    }
  });
});

describe('sealing', () => {
  test.for([
    ['a NUL', { token: `${MARKER}\0` }],
    ['more than 64 KiB', { token: MARKER.padEnd(SECRET_BYTES_MAX + 1, '.') }],
    ['more than 64 KiB of UTF-8', { token: MARKER + 'ü'.repeat(SECRET_BYTES_MAX / 2) }],
    ['a name that is none', { 'Not A Name': MARKER }],
    ['too many', Object.fromEntries(Array.from({ length: 65 }, (_, at) => [`s${at}`, MARKER]))],
  ] as const)('refuses %s, and does not quote the value', ([, secrets]) => {
    expect(refusalOf(() => seal(secrets))).not.toContain(MARKER);
  });

  test('takes 64 KiB', () => {
    const token = '.'.repeat(SECRET_BYTES_MAX);
    expect(open(seal({ token }))).toEqual({ token });
  });

  test.for([
    ['of small order', new Uint8Array(32)],
    ['too short', new Uint8Array(31).fill(9)],
  ] as const)('refuses a key %s', ([, sealKey]) => {
    refusalOf(() => seal({ token: MARKER }, CONTEXT, sealKey));
  });
});
