import {
  base64,
  canonicalBytes,
  type Envelope,
  type ErrorCode,
  fromBase64,
  fromUtf8,
  LIMITS,
  type ScriptPayload,
  type Signer,
  signEnvelope,
  utf8,
} from '@hypha/protocol';
import {
  createKey,
  type ScriptOptions,
  scriptPayloadOf,
  signedScript,
  type TestFleet,
} from './fleet.ts';

/** A submission that must be refused: what is wrong with it, the code it must get, and the body to post. */
export interface BadScript {
  readonly name: string;
  readonly code: ErrorCode;
  /** Bytes of `{envelope}` as they go over the wire. */
  readonly body: Uint8Array;
}

/** Group order L of Ed25519, little-endian: adding it to S makes another spelling of the signature. */
const L = 2n ** 252n + 27742317777372353535851937790883648493n;

/**
 * Every way a submission can be wrong by itself, each made from a valid one. What depends on the state of
 * the receiver (a nonce used before, an older generation, a revoked key) is for the test to make.
 */
export function badScripts(
  fleet: Pick<TestFleet, 'authority' | 'operator'>,
  options: ScriptOptions,
): readonly BadScript[] {
  const good = signedScript(fleet, options);
  const payload = scriptPayloadOf(fleet, options);
  const { iat } = payload;
  const envelope = (name: string, code: ErrorCode, changed: Partial<Envelope>): BadScript => ({
    name,
    code,
    body: bodyOf({ ...good, ...changed }),
  });
  const signed = (name: string, code: ErrorCode, changed: object, signer?: Signer): BadScript => ({
    name,
    code,
    body: bodyOf(sign({ ...payload, ...changed }, signer ?? fleet.operator)),
  });
  return [
    ...badEnvelopes(good, envelope),
    signed('an unknown key', 'E_UNKNOWN_KEY', {}, createKey()),
    {
      name: 'a byte order mark',
      code: 'E_PAYLOAD',
      body: bodyOf(signRaw(payload, fleet, (text) => `\uFEFF${text}`)),
    },
    {
      name: 'a duplicate key in the payload',
      code: 'E_PAYLOAD',
      body: bodyOf(signRaw(payload, fleet, (text) => text.replace('{', '{"v":1,'))),
    },
    signed('an unknown field in the payload', 'E_PAYLOAD', { extra: 1 }),
    signed('a name with a slash', 'E_PAYLOAD', { deployment: 'a/b' }),
    signed('a name with a leading dash', 'E_PAYLOAD', { deployment: '-web' }),
    signed('a fraction', 'E_PAYLOAD', { input: { ratio: 0.5 } }),
    signed('another source than its digest', 'E_DIGEST', {
      script: { engine: 'quickjs-es2023', sha256: '0'.repeat(64), source: 'export default 1;' },
    }),
    signed('a date ahead of the clock', 'E_NOT_YET', {
      iat: iat + 900,
      nbf: iat + 900,
      exp: iat + 1000,
    }),
    signed('a date that has passed', 'E_EXPIRED', { nbf: iat - 900, exp: iat - 1 }),
    signed('a validity of more than a day', 'E_LIFETIME', {
      exp: iat + LIMITS.lifetimeSecondsMax + 1,
    }),
  ];
}

function badEnvelopes(
  good: Envelope,
  envelope: (name: string, code: ErrorCode, changed: Partial<Envelope>) => BadScript,
): readonly BadScript[] {
  const [signature] = good.signatures;
  if (signature === undefined) throw new RangeError('an envelope without a signature');
  const text = JSON.stringify({ envelope: good });
  return [
    {
      name: 'a duplicate key',
      code: 'E_ENVELOPE',
      body: utf8(text.replace('{', '{"envelope":{},')),
    },
    { name: 'no JSON', code: 'E_ENVELOPE', body: utf8(text.slice(0, -1)) },
    { name: 'an unknown field', code: 'E_ENVELOPE', body: bodyOf({ ...good, extra: 1 }) },
    envelope('malformed base64', 'E_ENVELOPE', { payload: `${good.payload.slice(0, -4)}*AAA` }),
    envelope('another payload type', 'E_PAYLOAD_TYPE', {
      payloadType: 'application/vnd.hypha.cancel.v1+json',
    }),
    envelope('no signature', 'E_SIG_FORMAT', { signatures: [] }),
    envelope('one key twice', 'E_SIG_FORMAT', { signatures: [signature, signature] }),
    envelope('a cut signature', 'E_SIG_FORMAT', {
      signatures: [{ ...signature, sig: signature.sig.slice(0, 40) }],
    }),
    envelope('a changed byte', 'E_SIG_INVALID', { payload: withChangedByte(good.payload) }),
    envelope('a malleated signature', 'E_SIG_MALLEABLE', {
      signatures: [{ ...signature, sig: withOtherSpelling(signature.sig) }],
    }),
    envelope('a payload over 256 KiB', 'E_SIZE', {
      payload: base64(new Uint8Array(LIMITS.payloadBytesMax + 1)),
    }),
    {
      name: 'a body over 1 MiB',
      code: 'E_SIZE',
      body: utf8(`${text}${' '.repeat(LIMITS.submissionBytesMax)}`),
    },
  ];
}

/** The base64 of a payload with one bit in its middle flipped. */
export function withChangedByte(payload: string): string {
  const bytes = fromBase64(payload);
  const middle = bytes.length >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  return base64(bytes);
}

/** The same signature with S + L in the place of S: verifies wherever S < L is not checked. */
export function withOtherSpelling(sig: string): string {
  const bytes = fromBase64(sig);
  let s = L;
  for (let i = 0; i < 32; i++) s += BigInt(bytes[32 + i] ?? 0) << BigInt(8 * i);
  for (let i = 0; i < 32; i++) bytes[32 + i] = Number((s >> BigInt(8 * i)) & 0xffn);
  return base64(bytes);
}

function bodyOf(envelope: unknown): Uint8Array {
  return utf8(JSON.stringify({ envelope }));
}

/** Past the checks a builder makes, so that it can be wrong. */
function sign(payload: unknown, signer: Signer): Envelope {
  return signEnvelope('script', canonicalBytes(payload), [signer]);
}

function signRaw(
  payload: ScriptPayload,
  { operator }: Pick<TestFleet, 'operator'>,
  change: (text: string) => string,
): Envelope {
  const text = change(fromUtf8(canonicalBytes(payload)));
  return signEnvelope('script', utf8(text), [operator]);
}
