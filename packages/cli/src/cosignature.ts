/** Adds one signature to an envelope, and refuses the one that would spoil all the others. */
import {
  Authority,
  base64,
  type Envelope,
  findScopeFault,
  findSignatureFault,
  fromBase64,
  HyphaError,
  keyIdOf,
  LIMITS,
  preAuthEncoding,
  type Signer,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Session } from './session.ts';
import { signersOf } from './signature-count.ts';
import { payloadOf, type SignedPayload } from './signed-payload.ts';
import type { SigningFile } from './signing-file.ts';

/** A key with what it signed, wherever that was done. */
export interface Cosignature {
  readonly publicKey: Uint8Array;
  readonly signature: Uint8Array;
}

/** DSSE pre-authentication encoding: the bytes that any Ed25519 tool has to sign. */
export function bytesToSign({ payloadType, ...envelope }: Envelope): Uint8Array {
  return preAuthEncoding(payloadType, payloadOf({ payloadType, ...envelope }));
}

export function cosignatureBy(signer: Signer, envelope: Envelope): Cosignature {
  return { publicKey: signer.publicKey, signature: signer.sign(bytesToSign(envelope)) };
}

/**
 * A receiver refuses an envelope for one signature that it cannot place, so each is checked before it is added.
 * @throws HyphaError `E_CONFLICT` for a key that has signed, `E_SIG_FORMAT` over eight, `E_UNKNOWN_KEY`,
 *   `E_KEY_REVOKED` or `E_SCOPE` for a key that has no part in it, and the codes of a bad signature
 */
export function addSignature(
  envelope: Envelope,
  { publicKey, signature }: Cosignature,
  item: SignedPayload,
  authority: Authority | undefined,
): Envelope {
  const keyid = keyIdOf(nodeVerifier, publicKey);
  if (envelope.signatures.some((known) => known.keyid === keyid)) {
    throw new HyphaError('E_CONFLICT', `${keyid} has signed it already`, {
      hint: 'another key has to sign; hypha cosign FILE says which',
    });
  }
  if (envelope.signatures.length >= LIMITS.signaturesMax) {
    throw new HyphaError(
      'E_SIG_FORMAT',
      `it has ${envelope.signatures.length} signatures: at most ${LIMITS.signaturesMax}`,
    );
  }
  checkHasPart(keyid, item, authority);
  checkHolds(envelope, { publicKey, signature }, keyid);
  return { ...envelope, signatures: [...envelope.signatures, { keyid, sig: base64(signature) }] };
}

function checkHasPart(keyid: string, item: SignedPayload, authority: Authority | undefined): void {
  const signers = signersOf(item, authority);
  if (signers === undefined || signers.some((key) => key.keyid === keyid)) return;
  const record = authority?.findKey(keyid);
  if (record?.status === 'revoked') {
    throw new HyphaError('E_KEY_REVOKED', `key ${record.grant.name} (${keyid}) was revoked`);
  }
  if (record !== undefined) {
    const fault = item.kind === 'script' ? findScopeFault(item.payload, record.grant) : undefined;
    throw (
      fault ??
      new HyphaError('E_SCOPE', `key ${record.grant.name} (${keyid}) has no say in this`, {
        hint: 'hypha cosign FILE says whose signatures it needs',
      })
    );
  }
  throw new HyphaError(
    'E_UNKNOWN_KEY',
    `${keyid} has no part in it: the file knows the authority up to update ${authority?.seq ?? 0}`,
    { hint: 'hypha cosign FILE says who can sign; a key granted since needs the file made anew' },
  );
}

function checkHolds(
  envelope: Envelope,
  { publicKey, signature }: Cosignature,
  keyid: string,
): void {
  const message = bytesToSign(envelope);
  const fault = findSignatureFault(nodeVerifier, { publicKey, message, signature });
  if (fault === undefined) return;
  throw new HyphaError(fault, `the signature of ${keyid} is not over these bytes`, {
    hint: 'sign exactly what this prints: hypha cosign FILE --pae',
  });
}

/** Throws for a signature that is there already and would have the whole envelope refused. */
export function checkSignatures(
  envelope: Envelope,
  item: SignedPayload,
  authority: Authority | undefined,
): void {
  const signers = signersOf(item, authority);
  if (signers === undefined) return;
  for (const { keyid, sig } of envelope.signatures) {
    checkHasPart(keyid, item, authority);
    const publicKey = signers.find((signer) => signer.keyid === keyid)?.publicKey;
    if (publicKey === undefined) continue;
    checkHolds(envelope, { publicKey, signature: readSignature(sig) }, keyid);
  }
}

/** Raw bytes; throws `E_SIG_FORMAT`. */
export function readSignature(text: string): Uint8Array {
  let bytes: Uint8Array | undefined;
  try {
    bytes = fromBase64(text);
  } catch {
    bytes = undefined;
  }
  if (bytes?.length === 64) return bytes;
  throw new HyphaError('E_SIG_FORMAT', 'a signature is not 64 bytes in base64', {
    hint: 'give it on one line: openssl base64 -A',
  });
}

/**
 * The authority a file carries, replayed. Undefined when it carries none.
 * @param pinned what this machine trusts, where it has a context or was told
 * @throws HyphaError `E_AUTHORITY` for another fleet's, and the codes of a chain that does not hold
 */
export function carriedAuthority(
  { submission }: SigningFile,
  pinned: string | undefined,
): Authority | undefined {
  const { authority = [] } = submission;
  if (authority.length === 0) return undefined;
  return Authority.replay(nodeVerifier, authority, pinned);
}

/** Genesis hash this machine trusts: as given, else of its context; undefined where there is none. */
export function pinnedGenesis(session: Session, given: string | undefined): string | undefined {
  if (given !== undefined) return given;
  try {
    return session.context.genesis;
  } catch (error) {
    if (error instanceof HyphaError && error.code === 'E_NOT_FOUND') return undefined;
    throw error;
  }
}
