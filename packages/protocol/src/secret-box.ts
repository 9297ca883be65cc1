/**
 * Sealed secrets (design §8): for each node one `nacl.box` from an ephemeral key to the node's X25519 sealing
 * key. A box has no associated data, so the context it was sealed for is inside and compared when it is
 * opened: it cannot be moved to another node, realm or envelope (security notes §1.8).
 *
 * Wire: base64(ephemeral public key, 32 bytes ‖ nonce, 24 bytes ‖ box). No error of this file says anything
 * of what was inside.
 */
import nacl from 'tweetnacl';
import { z } from 'zod';
import { canonicalBytes } from './canonical-json.ts';
import { base64, concatBytes, fromBase64, utf8 } from './encoding.ts';
import { HyphaError } from './hypha-error.ts';
import { Name, NodeId, RevisionId } from './ids.ts';
import { LIMITS } from './limits.ts';
import { parseStrictJson } from './strict-json.ts';

/** UTF-8 bytes of one value. */
export const SECRET_BYTES_MAX = 64 * 1024;

const KEY_BYTES = nacl.box.publicKeyLength;
const NONCE_BYTES = nacl.box.nonceLength;
const HEAD_BYTES = KEY_BYTES + NONCE_BYTES;

/** What a box is bound to. */
export const SecretContext = z.strictObject({
  realm: Name,
  node: NodeId,
  /** Of the payload that carries the box. */
  id: RevisionId,
});
export type SecretContext = Readonly<z.infer<typeof SecretContext>>;

const SecretValue = z
  .string()
  .refine((text) => !text.includes('\0'), 'holds a NUL')
  .refine((text) => utf8(text).length <= SECRET_BYTES_MAX, 'is over 64 KiB');

/** Name → value; null: the value that the node holds stays. */
export const SecretValues = z
  .record(Name, SecretValue.nullable())
  .refine((values) => Object.keys(values).length <= LIMITS.secretsMax, 'more than 64 secrets');
export type SecretValues = Readonly<z.infer<typeof SecretValues>>;

const SealedContent = SecretContext.extend({ v: z.literal(1), secrets: SecretValues });

/** A secret a node holds, as its API shows it. */
export const SecretView = z.object({
  realm: Name,
  deployment: Name,
  name: Name,
  /** The node's keyed hash of the value: it changes with the value and tells nothing of it. */
  version: z.string(),
  /** When the node first had this value, epoch milliseconds. */
  since: z.int(),
  /** Resources whose record names it, as `kind/name`. */
  usedBy: z.array(z.string()),
});
export type SecretView = z.infer<typeof SecretView>;

type RandomBytes = (count: number) => Uint8Array;

/**
 * One node's box, for `secrets` of a script payload.
 * @param options.sealKey raw X25519 public key, from the node's verified enrolment
 * @param options.randomBytes cryptographically strong
 * @throws HyphaError `E_SECRET` for values out of bounds, naming the secret and never its value, and for a key
 *   that nothing can be sealed to
 */
export function sealSecrets(
  secrets: SecretValues,
  options: {
    readonly context: SecretContext;
    readonly sealKey: Uint8Array;
    readonly randomBytes: RandomBytes;
  },
): string {
  const { context, sealKey, randomBytes } = options;
  const parsed = SealedContent.safeParse({ v: 1, ...context, secrets });
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const path = issue?.path.map(String).join('.') ?? '';
    throw new HyphaError('E_SECRET', `cannot seal ${path}: ${issue?.message ?? 'does not fit'}`, {
      where: { path },
    });
  }
  const content = canonicalBytes(parsed.data);
  try {
    return sealBytes(content, { sealKey, randomBytes });
  } finally {
    content.fill(0);
  }
}

/**
 * What is in the box of a node.
 * @param options.secretKeys raw X25519 private keys, tried in order
 * @throws HyphaError `E_SECRET` when none opens it, or when it was sealed for something else
 */
export function openSecrets(
  box: string,
  options: { readonly context: SecretContext; readonly secretKeys: readonly Uint8Array[] },
): SecretValues {
  const { context, secretKeys } = options;
  const content = openBytes(box, secretKeys);
  try {
    const { v: _, secrets, ...sealedFor } = readContent(content);
    for (const field of ['realm', 'node', 'id'] as const) {
      if (sealedFor[field] === context[field]) continue;
      throw new HyphaError(
        'E_SECRET',
        `the secrets of ${context.id} were sealed for another ${field}`,
        {
          where: { path: `secrets.${context.node}` },
          details: { sealedFor, context },
          hint: 'a box was moved between envelopes: sign the work again, and find out who moved it',
        },
      );
    }
    return secrets;
  } finally {
    content.fill(0);
  }
}

function readContent(content: Uint8Array): z.infer<typeof SealedContent> {
  try {
    return SealedContent.parse(parseStrictJson(content, { integersOnly: true }));
  } catch {
    // Without the cause: it may quote what it could not read.
    throw new HyphaError('E_SECRET', 'a box of secrets opened, but does not hold secrets');
  }
}

/** Any bytes to a key: a box as `sealSecrets` makes it. Throws `E_SECRET` for an unusable key. */
export function sealBytes(
  bytes: Uint8Array,
  options: { readonly sealKey: Uint8Array; readonly randomBytes: RandomBytes },
): string {
  const { sealKey, randomBytes } = options;
  const ephemeral = nacl.box.keyPair.fromSecretKey(randomBytes(KEY_BYTES));
  try {
    if (sealKey.length !== KEY_BYTES || isSmallOrder(ephemeral.secretKey, sealKey)) {
      throw new HyphaError('E_SECRET', 'nothing can be sealed to this key: it is no X25519 key');
    }
    const nonce = randomBytes(NONCE_BYTES);
    const box = nacl.box(bytes, nonce, sealKey, ephemeral.secretKey);
    return base64(concatBytes(ephemeral.publicKey, nonce, box));
  } finally {
    ephemeral.secretKey.fill(0);
  }
}

/** Throws `E_SECRET` when no key opens the box. The caller zeroes what it gets. */
export function openBytes(box: string, secretKeys: readonly Uint8Array[]): Uint8Array {
  const sealed = decodeBox(box);
  const [ephemeral, nonce] = [
    sealed.subarray(0, KEY_BYTES),
    sealed.subarray(KEY_BYTES, HEAD_BYTES),
  ];
  for (const secretKey of secretKeys) {
    if (isSmallOrder(secretKey, ephemeral)) continue;
    const opened = nacl.box.open(sealed.subarray(HEAD_BYTES), nonce, ephemeral, secretKey);
    if (opened !== null) return opened;
  }
  throw new HyphaError('E_SECRET', 'cannot open a box of secrets: it is not sealed to this node', {
    hint: 'the node may have changed its sealing key since: apply again',
  });
}

function decodeBox(box: string): Uint8Array {
  try {
    const bytes = fromBase64(box);
    if (bytes.length >= HEAD_BYTES + nacl.box.overheadLength) return bytes;
  } catch {
    // Said below, the same for every way not to be a box.
  }
  throw new HyphaError('E_SECRET', 'cannot open a box of secrets: it is cut or not base64');
}

/** A point of small order makes a key that everybody knows (RFC 7748 §6.1). */
function isSmallOrder(secretKey: Uint8Array, publicKey: Uint8Array): boolean {
  return nacl.scalarMult(secretKey, publicKey).every((byte) => byte === 0);
}
