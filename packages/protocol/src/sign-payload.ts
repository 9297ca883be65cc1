import type { z } from 'zod';
import { AuthorityPayload } from './authority-payload.ts';
import { CancelPayload } from './cancel-payload.ts';
import { canonicalBytes } from './canonical-json.ts';
import type { Signer } from './crypto-port.ts';
import { type Envelope, type PayloadKind, signEnvelope } from './dsse.ts';
import { HyphaError } from './hypha-error.ts';
import { LIMITS } from './limits.ts';
import { AdmissionPayload, EnrolPayload, ReportPayload } from './node-payloads.ts';
import { ReceiptPayload } from './receipt-payload.ts';
import { ScriptPayload } from './script-payload.ts';
import { parseAs, parseJsonAs } from './wire.ts';

const SCHEMAS = {
  script: ScriptPayload,
  cancel: CancelPayload,
  authority: AuthorityPayload,
  admission: AdmissionPayload,
  enrol: EnrolPayload,
  report: ReportPayload,
  receipt: ReceiptPayload,
} as const satisfies Partial<Record<PayloadKind, z.ZodType>>;
type SignedKind = keyof typeof SCHEMAS;
/** What a signer writes: members with a default may be left out; the signed bytes hold them all. */
export type PayloadInput<K extends SignedKind> = z.input<(typeof SCHEMAS)[K]>;

/**
 * The bytes to sign: canonical JSON of the payload with its defaults. Also for signing elsewhere, with
 * `preAuthEncoding` and any Ed25519 tool.
 * @throws HyphaError `E_PAYLOAD` for what a receiver would refuse to read, `E_SIZE`
 */
export function payloadBytes<K extends SignedKind>(kind: K, payload: PayloadInput<K>): Uint8Array {
  const schema: z.ZodType = SCHEMAS[kind];
  const refusal = { code: 'E_PAYLOAD', what: `the ${kind} payload` } as const;
  const bytes = canonicalBytes(parseAs(schema, payload, refusal));
  if (bytes.length > LIMITS.payloadBytesMax) {
    throw new HyphaError(
      'E_SIZE',
      `cannot sign a ${kind} payload of ${bytes.length} bytes: at most ${LIMITS.payloadBytesMax}`,
    );
  }
  // What we sign must read back: the reader is stricter than the schema (integers, keys, depth).
  parseJsonAs(schema, bytes, { ...refusal, integersOnly: true });
  return bytes;
}

function signPayload<K extends SignedKind>(
  kind: K,
  payload: PayloadInput<K>,
  signers: readonly Signer[],
): Envelope {
  return signEnvelope(kind, payloadBytes(kind, payload), signers);
}

export const signScript = (payload: PayloadInput<'script'>, signers: readonly Signer[]): Envelope =>
  signPayload('script', payload, signers);

export const signCancel = (payload: PayloadInput<'cancel'>, signers: readonly Signer[]): Envelope =>
  signPayload('cancel', payload, signers);

export const signAuthority = (
  payload: PayloadInput<'authority'>,
  signers: readonly Signer[],
): Envelope => signPayload('authority', payload, signers);

export const signAdmission = (payload: PayloadInput<'admission'>, signer: Signer): Envelope =>
  signPayload('admission', payload, [signer]);

/** @param replaced the key of the node whose place is taken, for a statement with `replaces` */
export const signEnrolment = (
  payload: PayloadInput<'enrol'>,
  signer: Signer,
  replaced?: Signer,
): Envelope =>
  signPayload('enrol', payload, replaced === undefined ? [signer] : [signer, replaced]);

export const signReport = (payload: PayloadInput<'report'>, signer: Signer): Envelope =>
  signPayload('report', payload, [signer]);

export const signReceipt = (payload: PayloadInput<'receipt'>, signer: Signer): Envelope =>
  signPayload('receipt', payload, [signer]);
