import type { Verifier } from './crypto-port.ts';
import { type Envelope, PAYLOAD_TYPES, type PayloadKind, preAuthEncoding } from './dsse.ts';
import { findSignatureFault, type SignatureFault } from './ed25519.ts';
import { fromBase64, hex } from './encoding.ts';
import { HyphaError } from './hypha-error.ts';
import { keyIdOf } from './ids.ts';
import { LIMITS } from './limits.ts';

/** An envelope whose form is sound and whose signatures are not yet looked at. */
export interface OpenedEnvelope {
  /** The exact bytes that were signed. Unverified: only for finding a key or a record. */
  readonly payload: Uint8Array;
  /** Pre-authentication encoding of type and payload. */
  readonly message: Uint8Array;
  /** Hex SHA-256 of `message`: the identity of what was signed, whoever signed it. */
  readonly digest: string;
  readonly signatures: readonly { readonly keyid: string; readonly bytes: Uint8Array }[];
}

/** Only bytes whose every signature held. */
export interface VerifiedEnvelope {
  readonly payload: Uint8Array;
  readonly digest: string;
  /** Distinct keys, in the order of the signatures. */
  readonly keyids: readonly string[];
}

const FAULTS: Readonly<Record<SignatureFault, string>> = {
  E_WEAK_KEY: 'is not a sound Ed25519 key',
  E_SIG_MALLEABLE: 'made a signature that is not in its canonical form',
  E_SIG_INVALID: 'did not sign these bytes',
};

/**
 * Steps 3 to 9 of security notes §1.4, in that order, each over all signatures before the next: one
 * unsound signature refuses the whole envelope.
 * @param input.keys keyid → raw public key; may throw its own refusal (revoked, expired). A key that is not
 *   the one the keyid names counts as unknown, so a sole candidate can be given for any keyid.
 * @throws HyphaError `E_PAYLOAD_TYPE`, `E_SIG_FORMAT`, `E_ENVELOPE`, `E_SIZE`, `E_UNKNOWN_KEY`,
 *   `E_WEAK_KEY`, `E_SIG_MALLEABLE`, `E_SIG_INVALID`
 */
export function verifyEnvelope(
  verifier: Verifier,
  input: {
    readonly envelope: Envelope;
    readonly kind: PayloadKind;
    readonly keys: (keyid: string) => Uint8Array | undefined;
  },
): VerifiedEnvelope {
  const opened = openEnvelope(verifier, input.envelope, input.kind);
  return verifyOpened(verifier, opened, input.keys);
}

/** Steps 3 to 5: payload type, form of the signatures, payload bytes, digest. */
export function openEnvelope(
  verifier: Verifier,
  envelope: Envelope,
  kind: PayloadKind,
): OpenedEnvelope {
  const expected = PAYLOAD_TYPES[kind];
  if (envelope.payloadType !== expected) {
    throw new HyphaError(
      'E_PAYLOAD_TYPE',
      `expected an envelope of ${expected}, got ${JSON.stringify(envelope.payloadType)}`,
      { where: { path: 'payloadType' } },
    );
  }
  const signatures = decodeSignatures(envelope);
  const payload = decodePayload(envelope);
  const message = preAuthEncoding(expected, payload);
  return { payload, message, digest: hex(verifier.sha256(message)), signatures };
}

/** Steps 6 to 9 over what `openEnvelope` gave. */
export function verifyOpened(
  verifier: Verifier,
  opened: OpenedEnvelope,
  keys: (keyid: string) => Uint8Array | undefined,
): VerifiedEnvelope {
  const { message, digest, payload } = opened;
  const claims = opened.signatures.map(({ keyid, bytes }, index) => {
    const publicKey = keys(keyid);
    // A keyid is a hint until it is the hash of the key: else one key could count twice.
    if (publicKey === undefined || keyIdOf(verifier, publicKey) !== keyid) {
      throw new HyphaError('E_UNKNOWN_KEY', `the authority does not know the key ${keyid}`, {
        where: { path: `signatures.${index}.keyid` },
      });
    }
    return { keyid, fault: findSignatureFault(verifier, { publicKey, message, signature: bytes }) };
  });
  for (const code of ['E_WEAK_KEY', 'E_SIG_MALLEABLE', 'E_SIG_INVALID'] as const) {
    const index = claims.findIndex(({ fault }) => fault === code);
    const claim = claims[index];
    if (claim === undefined) continue;
    throw new HyphaError(code, `${claim.keyid} ${FAULTS[code]} (envelope ${digest})`, {
      where: { path: `signatures.${index}` },
    });
  }
  return { payload, digest, keyids: claims.map(({ keyid }) => keyid) };
}

/** Identity of an envelope without verifying it: for looking up what is already known. */
export function envelopeDigest(verifier: Verifier, envelope: Envelope, kind: PayloadKind): string {
  return openEnvelope(verifier, envelope, kind).digest;
}

function decodeSignatures(envelope: Envelope): OpenedEnvelope['signatures'] {
  const refuse = (path: string, reason: string): never => {
    throw new HyphaError('E_SIG_FORMAT', `cannot read the signatures: ${reason}`, {
      where: { path },
    });
  };
  const { signatures } = envelope;
  if (signatures.length < 1 || signatures.length > LIMITS.signaturesMax)
    refuse('signatures', `there are ${signatures.length}, expected 1 to ${LIMITS.signaturesMax}`);
  const seen = new Set<string>();
  return signatures.map(({ keyid, sig }, index) => {
    if (seen.has(keyid)) refuse(`signatures.${index}.keyid`, `${keyid} signed twice`);
    seen.add(keyid);
    const bytes = decodeBase64(sig);
    if (bytes?.length !== 64)
      return refuse(`signatures.${index}.sig`, 'not 64 bytes in canonical base64');
    return { keyid, bytes };
  });
}

function decodePayload(envelope: Envelope): Uint8Array {
  const bytes = decodeBase64(envelope.payload);
  if (bytes === undefined) {
    throw new HyphaError('E_ENVELOPE', 'cannot read the payload: not canonical base64', {
      where: { path: 'payload' },
    });
  }
  if (bytes.length > LIMITS.payloadBytesMax) {
    throw new HyphaError(
      'E_SIZE',
      `cannot read a payload of ${bytes.length} bytes: at most ${LIMITS.payloadBytesMax}`,
      { where: { path: 'payload' } },
    );
  }
  return bytes;
}

function decodeBase64(text: string): Uint8Array | undefined {
  try {
    return fromBase64(text);
  } catch {
    return undefined;
  }
}
