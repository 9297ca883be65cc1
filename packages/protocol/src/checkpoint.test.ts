import { describe, expect, test } from 'vitest';
import { keyOf, refusalOf } from '../test/fleet.ts';
import {
  base64,
  type Checkpoint,
  checkExtends,
  checkpointOrigin,
  concatBytes,
  consistencyProof,
  findSignatureFault,
  fromBase64,
  fromHex,
  type HyphaError,
  hex,
  isHyphaError,
  leafHash,
  merkleRoot,
  type Signer,
  signCheckpoint,
  utf8,
  verifyCheckpoint,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const ORIGIN = checkpointOrigin('ab'.repeat(32));
const HEAD = {
  origin: ORIGIN,
  size: 5,
  root: '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  authority: { seq: 2, head: 'cd'.repeat(32) },
  time: 1_679_315_147,
};
const ledger = keyOf('ledger');
const { publicKey } = ledger;
const note = signCheckpoint(nodeVerifier, HEAD, ledger);
const read = (text: string, origin = ORIGIN) =>
  verifyCheckpoint(nodeVerifier, text, { origin, publicKey });
const refused = (text: string) => refusalOf(() => read(text)).code;

/** The note format once more, apart from the code: any body, any lines. */
function signatureLine(name: string, algorithm: number, key: Uint8Array, signature: Uint8Array) {
  const id = nodeVerifier.sha256(concatBytes(utf8(name), Uint8Array.of(0x0a, algorithm), key));
  return `— ${name} ${base64(concatBytes(id.slice(0, 4), signature))}\n`;
}
function signedBody(body: string, options: { time?: bigint; signer?: Signer } = {}) {
  const { time = 1n, signer = ledger } = options;
  const stamp = fromHex(time.toString(16).padStart(16, '0'));
  const cosigned = utf8(`cosignature/v1\ntime ${time}\n${body}`);
  return [
    `${body}\n`,
    signatureLine(ORIGIN, 1, signer.publicKey, signer.sign(utf8(body))),
    signatureLine(ORIGIN, 4, signer.publicKey, concatBytes(stamp, signer.sign(cosigned))),
  ].join('');
}
const ROOT = base64(fromHex(HEAD.root));
const AUTHORITY = `authority 2 ${HEAD.authority.head}`;

describe('a checkpoint', () => {
  test('reads back as what was signed', () => {
    expect(read(note)).toEqual({ ...HEAD, note });
  });

  test('is a C2SP checkpoint with our one extension line and two signature lines', () => {
    const lines = note.split('\n');
    expect(lines.slice(0, 5)).toEqual([ORIGIN, '5', ROOT, AUTHORITY, '']);
    expect(lines.slice(5).map((line) => line.slice(0, ORIGIN.length + 3))).toEqual([
      `\u2014 ${ORIGIN} `,
      `\u2014 ${ORIGIN} `,
      '',
    ]);
    expect(note).toBe(signedBody(`${ORIGIN}\n5\n${ROOT}\n${AUTHORITY}\n`, { time: 1679315147n }));
  });

  test('signs as the example of the signed-note format does', () => {
    // The note and the verifier key that Go's package documentation of the format gives.
    const text =
      'If you think cryptography is the answer to your problem,\n' +
      "then you don't know what your problem is.\n";
    const line =
      'x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=';
    const typed = fromBase64('ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW');
    const signature = fromBase64(line).slice(4);
    expect(hex(fromBase64(line).slice(0, 4))).toBe('c74f20a3');
    expect(typed[0]).toBe(1);
    expect(signatureLine('PeterNeumann', 1, typed.slice(1), signature)).toBe(
      `— PeterNeumann ${line}\n`,
    );
    const message = utf8(text);
    expect(
      findSignatureFault(nodeVerifier, { publicKey: typed.slice(1), message, signature }),
    ).toBeUndefined();
  });

  test('is believed with the lines of witnesses among ours', () => {
    const witness = signatureLine('witness.example', 4, publicKey, new Uint8Array(72));
    const unknownKind = signatureLine(ORIGIN, 0xff, publicKey, new Uint8Array(9));
    const [body, lines = ''] = note.split('\n\n');
    const withOthers = `${body}\n\n${witness}${lines}${unknownKind}`;
    expect(read(withOthers)).toEqual({ ...HEAD, note: withOthers });
  });

  test('is refused when another key signed it, or only one of the two lines is there', () => {
    const body = `${ORIGIN}\n5\n${ROOT}\n${AUTHORITY}\n`;
    expect(refused(signedBody(body))).toBe('none');
    expect(refused(signedBody(body, { signer: keyOf('other') }))).toBe('E_CHECKPOINT');
    const lines = note.split('\n');
    expect(refused(lines.toSpliced(5, 1).join('\n'))).toBe('E_CHECKPOINT');
    expect(refused(lines.toSpliced(6, 1).join('\n'))).toBe('E_CHECKPOINT');
    expect(refused(lines.toSpliced(5, 2).join('\n'))).toBe('E_CHECKPOINT');
  });

  test('is refused for another log, whatever its key signed', () => {
    const other = checkpointOrigin('ef'.repeat(32));
    expect(refusalOf(() => read(note, other)).code).toBe('E_CHECKPOINT');
    const body = `${other}\n5\n${ROOT}\n${AUTHORITY}\n`;
    expect(refused(signedBody(body))).toBe('E_CHECKPOINT');
  });

  test('is refused for a key of small order that signs anything', () => {
    const publicKeyOfAll = fromHex(`01${'00'.repeat(31)}`);
    const signature = fromHex(`01${'00'.repeat(63)}`);
    const body = `${ORIGIN}\n5\n${ROOT}\n${AUTHORITY}\n`;
    const forged = [
      `${body}\n`,
      signatureLine(ORIGIN, 1, publicKeyOfAll, signature),
      signatureLine(
        ORIGIN,
        4,
        publicKeyOfAll,
        new Uint8Array([...new Array(7).fill(0), 1, ...signature]),
      ),
    ].join('');
    const lenient = { ...nodeVerifier, verifyEd25519: () => true };
    const trusted = { origin: ORIGIN, publicKey: publicKeyOfAll };
    expect(refusalOf(() => verifyCheckpoint(lenient, forged, trusted)).code).toBe('E_CHECKPOINT');
  });

  test('does not survive any changed bit of its signed text and signatures', () => {
    const bytes = utf8(note);
    for (let at = 0; at < bytes.length; at++) {
      for (const bit of [0, 3, 7]) {
        const changed = bytes.slice();
        changed[at] = (changed[at] ?? 0) ^ (1 << bit);
        const text = new TextDecoder().decode(changed);
        expect(`${at}.${bit} ${refused(text)}`).toBe(`${at}.${bit} E_CHECKPOINT`);
      }
    }
  });

  test('carries a time its key signed', () => {
    const body = `${ORIGIN}\n5\n${ROOT}\n${AUTHORITY}\n`;
    const [now, later] = [signedBody(body, { time: 5n }), signedBody(body, { time: 6n })];
    expect(read(now).time).toBe(5);
    const stampOf = (text: string) => fromBase64(text.split(' ').at(-1)?.trim() ?? '').slice(4, 12);
    const moved = fromBase64(now.split(' ').at(-1)?.trim() ?? '');
    moved.set(stampOf(later), 4);
    const lines = now.split('\n');
    expect(refused(lines.with(6, `— ${ORIGIN} ${base64(moved)}`).join('\n'))).toBe('E_CHECKPOINT');
    expect(read(signedBody(body, { time: 2n ** 53n - 1n })).time).toBe(2 ** 53 - 1);
    for (const time of [0n, 2n ** 53n, 2n ** 63n])
      expect(refused(signedBody(body, { time }))).toBe('E_CHECKPOINT');
  });
});

describe('a note its key signed is refused', () => {
  test.for([
    ['without authority', `${ORIGIN}\n5\n${ROOT}\n`],
    ['with a further line', `${ORIGIN}\n5\n${ROOT}\n${AUTHORITY}\nmore\n`],
    ['with a blank line in its body', `${ORIGIN}\n5\n${ROOT}\n\n${AUTHORITY}\n`],
    ['of size 0', `${ORIGIN}\n0\n${ROOT}\n${AUTHORITY}\n`],
    ['with a leading zero in its size', `${ORIGIN}\n05\n${ROOT}\n${AUTHORITY}\n`],
    ['with a signed size', `${ORIGIN}\n+5\n${ROOT}\n${AUTHORITY}\n`],
    ['with a hexadecimal size', `${ORIGIN}\n0x5\n${ROOT}\n${AUTHORITY}\n`],
    ['with an exponent in its size', `${ORIGIN}\n5e0\n${ROOT}\n${AUTHORITY}\n`],
    ['with a size beyond 2^53', `${ORIGIN}\n9007199254740992\n${ROOT}\n${AUTHORITY}\n`],
    [
      'with a leading zero in its seq',
      `${ORIGIN}\n5\n${ROOT}\n${AUTHORITY.replace(' 2', ' 02')}\n`,
    ],
    [
      'with a seq beyond 2^53',
      `${ORIGIN}\n5\n${ROOT}\n${AUTHORITY.replace(' 2', ' 9007199254740992')}\n`,
    ],
    ['with an upper-case head', `${ORIGIN}\n5\n${ROOT}\n${AUTHORITY.toUpperCase()}\n`],
    ['with a short head', `${ORIGIN}\n5\n${ROOT}\n${AUTHORITY.slice(0, -1)}\n`],
    ['with an unpadded root', `${ORIGIN}\n5\n${ROOT.replace('=', '')}\n${AUTHORITY}\n`],
    ['with a root of 31 bytes', `${ORIGIN}\n5\n${base64(new Uint8Array(31))}\n${AUTHORITY}\n`],
    [
      'with a root in the URL alphabet',
      `${ORIGIN}\n5\n${base64(new Uint8Array(32).fill(255)).replaceAll('/', '_')}\n${AUTHORITY}\n`,
    ],
    ['with a root whose last bits are set', `${ORIGIN}\n5\n${'A'.repeat(42)}B=\n${AUTHORITY}\n`],
    ['with carriage returns', `${ORIGIN}\r\n5\r\n${ROOT}\r\n${AUTHORITY}\r\n`],
    ['with trailing space', `${ORIGIN}\n5 \n${ROOT}\n${AUTHORITY}\n`],
  ])('%s', ([, body]) => {
    expect(refused(signedBody(body ?? ''))).toBe('E_CHECKPOINT');
  });
});

describe('a note is refused', () => {
  const [body = '', lines = ''] = note.split(/(?<=\n)\n/);
  const [plain = '', cosigned = ''] = lines.split(/(?<=\n)/);
  const filler = (n: number) => signatureLine(`w${n}`, 4, publicKey, new Uint8Array(72));
  const many = (count: number) => Array.from({ length: count }, (_, n) => filler(n)).join('');

  test('unless it is whole', () => {
    expect(`${body}\n${plain}${cosigned}`).toBe(note);
    expect(refused(`${body}\n${plain}${cosigned}${many(14)}`)).toBe('none');
  });

  test.for([
    ['when it is empty', ''],
    ['when it is one newline', '\n'],
    ['without signatures', `${body}\n`],
    ['without the blank line', `${body}${plain}${cosigned}`],
    ['without the last newline', note.slice(0, -1)],
    ['with a blank line at its end', `${note}\n`],
    ['with a blank line between signatures', `${body}\n${plain}\n${cosigned}`],
    ['with carriage returns in signature lines', `${body}\n${lines.replaceAll('\n', '\r\n')}`],
    ['with carriage returns everywhere', note.replaceAll('\n', '\r\n')],
    ['with a byte order mark', `\uFEFF${note}`],
    ['with a lone surrogate', `${note.slice(0, -1)}\ud800\n`],
    ['with a hyphen for the em dash', note.replaceAll('\u2014', '-')],
    ['with an en dash for the em dash', note.replaceAll('\u2014', '\u2013')],
    ['with two spaces in a signature line', note.replace('\u2014 ', '\u2014  ')],
    ['with a plus in a key name', `${note}\u2014 a+b ${base64(new Uint8Array(76))}\n`],
    ['with a signature without padding', note.replace('=\n', '\n')],
    ['with a signature in the URL alphabet', `${note}\u2014 w ${'_'.repeat(8)}\n`],
    [
      'with a signature line that is only a key hash',
      `${note}\u2014 w ${base64(new Uint8Array(4))}\n`,
    ],
    ['with a malformed line of somebody else', `${note}\u2014 w *\n`],
    ['with a signature line twice', `${note}${plain}`],
    ['with two cosignatures of one key', `${note}${cosigned}`],
    ['with two lines of one other key', `${note}${filler(1)}${filler(1)}`],
    ['with more than 16 signatures', `${note}${many(15)}`],
    ['with more than 16 KiB', `${note}\u2014 w ${base64(new Uint8Array(16_384))}\n`],
  ])('%s', ([, text]) => {
    expect(refused(text ?? '')).toBe('E_CHECKPOINT');
  });
});

describe('a later checkpoint', () => {
  const leaves = Array.from({ length: 20 }, (_, n) => leafHash(nodeVerifier, utf8(`entry ${n}`)));
  const rootOf = (size: number, from = leaves) =>
    hex(merkleRoot(nodeVerifier, from.slice(0, size)));
  const readNode = (level: number, index: number) =>
    merkleRoot(nodeVerifier, leaves.slice(index * 2 ** level, (index + 1) * 2 ** level));
  const proofOf = async (from: number, to: number) =>
    (await consistencyProof(nodeVerifier, { from, to }, readNode)).map(hex);
  const at = (size: number, overrides: Partial<Checkpoint> = {}): Checkpoint => {
    const authority = { seq: Math.floor(size / 4), head: rootOf(Math.floor(size / 4) * 4) };
    const head = { ...HEAD, size, root: rootOf(size), authority, ...overrides };
    return read(signCheckpoint(nodeVerifier, head, ledger));
  };
  const extend = (pinned: Checkpoint, next: Checkpoint, proof: readonly string[]) =>
    checkExtends(nodeVerifier, pinned, next, proof);

  test('may follow when its tree is the same or a proof shows that it extends the pinned one', async () => {
    for (let from = 1; from <= leaves.length; from++) {
      for (let to = from; to <= leaves.length; to++)
        extend(at(from), at(to), await proofOf(from, to));
    }
    expect(() => extend(at(5), at(5, { time: 9 }), [])).not.toThrow();
  });

  test('that forks from the pinned one is refused with both notes as evidence', async () => {
    const forged = leaves.with(2, leafHash(nodeVerifier, utf8('another entry')));
    const proof = await proofOf(5, 9);
    const { root, authority } = at(9);
    const cases: readonly [Checkpoint, Checkpoint, readonly string[]][] = [
      [at(5), at(5, { root: rootOf(5, forged) }), []],
      [at(5), at(5, { authority: { seq: 1, head: 'ee'.repeat(32) } }), []],
      [at(5), at(5, { authority: { ...authority, seq: 2 } }), []],
      [at(9), at(5), []],
      [at(9), at(5), proof],
      [at(5), at(9, { root: rootOf(9, forged) }), proof],
      [at(5), at(9), []],
      [at(5), at(9), [...proof, root]],
      [at(5), at(9), ['zz', ...proof]],
      [at(5), at(9), proof.map((hash) => hash.slice(2))],
      [at(5), at(9, { authority: { ...authority, seq: 0 } }), proof],
      [at(5), at(9, { authority: { ...authority, seq: 1 } }), proof],
    ];
    for (const [pinned, next, shown] of cases) {
      const error = failureOf(() => extend(pinned, next, shown));
      expect(error?.code).toBe('E_LOG_FORK');
      expect(error?.details).toEqual({ pinned: pinned.note, other: next.note });
    }
    expect(refusalOf(() => extend(at(5), at(9), proof)).code).toBe('none');
  });
});

function failureOf(call: () => void): HyphaError | undefined {
  try {
    call();
  } catch (error) {
    if (isHyphaError(error)) return error;
    throw error;
  }
  return undefined;
}
