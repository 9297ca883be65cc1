import { z } from 'zod';
import type { Signer, Verifier } from './crypto-port.ts';
import { base64, concatBytes, hex, utf8 } from './encoding.ts';
import { LIMITS } from './limits.ts';

/** Separates domains: a signature over one type can never be shown as another (design §8). */
export const PAYLOAD_TYPES = {
  script: 'application/vnd.hypha.script.v1+json',
  cancel: 'application/vnd.hypha.cancel.v1+json',
  authority: 'application/vnd.hypha.authority.v1+json',
  admission: 'application/vnd.hypha.admission.v1+json',
  enrol: 'application/vnd.hypha.enrol.v1+json',
  report: 'application/vnd.hypha.report.v1+json',
  receipt: 'application/vnd.hypha.receipt.v1+json',
} as const;
export type PayloadKind = keyof typeof PAYLOAD_TYPES;

/**
 * DSSE v1.0.2 envelope as it stands on the wire. Fields are only shaped here; base64, signature counts
 * and keys are checked by the verification function, one code per check.
 */
export const Envelope = z.strictObject({
  payloadType: z.string().max(256),
  // The payload's own bound is the verification function's `E_SIZE`; this one only bounds memory.
  payload: z.string().max(LIMITS.submissionBytesMax),
  signatures: z
    .array(z.strictObject({ keyid: z.string().max(256), sig: z.string().max(256) }))
    .max(64),
});
export type Envelope = z.infer<typeof Envelope>;

/** Pre-authentication encoding: the bytes that are signed. Lengths are byte lengths in ASCII decimal. */
export function preAuthEncoding(payloadType: string, payload: Uint8Array): Uint8Array {
  const typeBytes = utf8(payloadType).length;
  return concatBytes(utf8(`DSSEv1 ${typeBytes} ${payloadType} ${payload.length} `), payload);
}

/** Envelope digest: lower-case hex SHA-256 of the pre-authentication bytes (design §8). */
export function digestOf(verifier: Verifier, payloadType: string, payload: Uint8Array): string {
  return hex(verifier.sha256(preAuthEncoding(payloadType, payload)));
}

export function signEnvelope(
  kind: PayloadKind,
  payload: Uint8Array,
  signers: readonly Signer[],
): Envelope {
  const payloadType = PAYLOAD_TYPES[kind];
  const bytes = preAuthEncoding(payloadType, payload);
  return {
    payloadType,
    payload: base64(payload),
    signatures: signers.map((signer) => ({ keyid: signer.keyid, sig: base64(signer.sign(bytes)) })),
  };
}
