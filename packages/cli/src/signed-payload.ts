/** What a person signs, decoded from the very bytes that are signed. */
import {
  AdmissionPayload,
  AuthorityPayload,
  checkModeFits,
  type Envelope,
  fromBase64,
  HyphaError,
  PAYLOAD_TYPES,
  parseJsonAs,
  ScriptPayload,
} from '@hypha/protocol';

/** Kinds that people sign; enrolments, reports and receipts are signed by nodes. */
export type SignedPayload =
  | { readonly kind: 'script'; readonly payload: ScriptPayload }
  | { readonly kind: 'authority'; readonly payload: AuthorityPayload }
  | { readonly kind: 'admission'; readonly payload: AdmissionPayload };

const SCHEMAS = {
  script: ScriptPayload,
  authority: AuthorityPayload,
  admission: AdmissionPayload,
} as const;

/**
 * As strict as whoever receives it, so that nobody signs what will be refused.
 * @throws HyphaError `E_PAYLOAD_TYPE`, `E_ENVELOPE`, `E_PAYLOAD`, `E_UNSUPPORTED`
 */
export function readSignedPayload(envelope: Envelope): SignedPayload {
  const kind = (['script', 'authority', 'admission'] as const).find(
    (name) => PAYLOAD_TYPES[name] === envelope.payloadType,
  );
  if (kind === undefined) {
    throw new HyphaError(
      'E_PAYLOAD_TYPE',
      `nobody signs ${JSON.stringify(envelope.payloadType)} by hand`,
      {
        where: { path: 'payloadType' },
        hint: `scripts, authority updates and admissions are: ${SIGNED_TYPES.join(', ')}`,
      },
    );
  }
  const bytes = payloadOf(envelope);
  const refusal = { code: 'E_PAYLOAD', what: `the ${kind} payload`, integersOnly: true } as const;
  // One literal per kind: the union cannot be built from a lookup.
  switch (kind) {
    case 'script': {
      const payload = parseJsonAs(SCHEMAS[kind], bytes, refusal);
      checkModeFits(payload);
      return { kind, payload };
    }
    case 'authority':
      return { kind, payload: parseJsonAs(SCHEMAS[kind], bytes, refusal) };
    case 'admission':
      return { kind, payload: parseJsonAs(SCHEMAS[kind], bytes, refusal) };
  }
}

const SIGNED_TYPES = [PAYLOAD_TYPES.script, PAYLOAD_TYPES.authority, PAYLOAD_TYPES.admission];

export function payloadOf(envelope: Envelope): Uint8Array {
  try {
    return fromBase64(envelope.payload);
  } catch (cause) {
    throw new HyphaError('E_ENVELOPE', 'cannot read the payload: not canonical base64', {
      cause,
      where: { path: 'payload' },
    });
  }
}
