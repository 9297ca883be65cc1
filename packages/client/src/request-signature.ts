/**
 * HTTP message signatures (RFC 9421) as Hypha's services use them (design §9): what is signed and how it is
 * read back. Client and server share this file, so both build the same signature base.
 *
 * Header values come from and go to the wire exactly as they stand; path and query are the raw request
 * target, never a re-serialised URL.
 */
import { createHash } from 'node:crypto';
import { HyphaError, LIMITS, type Signer, utf8 } from '@hypha/protocol';
import {
  type InnerList,
  isInnerList,
  type Parameters,
  parseDictionary,
  serializeDictionary,
  serializeInnerList,
  serializeItem,
} from 'structured-headers';

/** Components every signature covers; `content-digest` may be left out when there is no body. */
export const COVERED_COMPONENTS = [
  '@method',
  '@authority',
  '@path',
  '@query',
  'content-digest',
] as const;

const LABEL = 'sig1';
/** Says what a signature is for (RFC 9421 §2.3). One without is taken; one for something else is not. */
const TAG = 'hypha-v1';
const NONCE_CHARS_MIN = 16;
const NONCE_CHARS_MAX = 128;

/** The parts of a request a signature can cover. */
export interface SignableRequest {
  /** Its default port is left out of the authority. */
  readonly scheme: 'http' | 'https';
  readonly method: string;
  /** `Host` as sent. */
  readonly authority: string;
  /** Raw, percent-encoded as sent. */
  readonly path: string;
  /** With its `?`; empty when there is none. */
  readonly query: string;
  /** By lower-case name; several lines of one field joined with `, `. */
  header(name: string): string | undefined;
}

/** A signature as a request carries it, its signature base rebuilt. Nothing is verified yet. */
export interface RequestSignature {
  readonly keyid: string;
  readonly nonce: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly expires: number;
  readonly covered: readonly string[];
  /** What was signed. */
  readonly base: Uint8Array;
  readonly signature: Uint8Array;
}

/** RFC 9530 `Content-Digest` of a body. */
export function contentDigest(body: Uint8Array): string {
  return `sha-256=:${createHash('sha256').update(body).digest('base64')}:`;
}

/** Signature base of RFC 9421 §2.5. Throws `RangeError` for a component the request does not have. */
export function signatureBase(request: SignableRequest, input: InnerList): string {
  const [components, parameters] = input;
  const lines = components.map((component) => {
    const [name, flags] = component;
    if (typeof name !== 'string' || flags.size > 0) throw new RangeError('component not supported');
    return `${serializeItem(component)}: ${componentValue(request, name)}`;
  });
  return [...lines, `"@signature-params": ${serializeInnerList([components, parameters])}`].join(
    '\n',
  );
}

function componentValue(request: SignableRequest, name: string): string {
  switch (name) {
    case '@method':
      return request.method;
    case '@authority':
      return canonicalAuthority(request.authority, request.scheme);
    case '@path':
      return request.path === '' ? '/' : request.path;
    case '@query':
      return request.query === '' ? '?' : request.query;
    default: {
      const value = name.startsWith('@') ? undefined : request.header(name);
      if (value === undefined) throw new RangeError(`no component ${name}`);
      return value.trim();
    }
  }
}

/** RFC 9421 §2.2.3: lower case, the scheme's default port left out. */
export function canonicalAuthority(authority: string, scheme: 'http' | 'https'): string {
  return authority.toLowerCase().replace(scheme === 'https' ? /:443$/ : /:80$/, '');
}

/** Headers that sign a request: `content-digest`, `signature-input`, `signature`. */
export function signRequest(
  request: { method: string; url: URL; body: Uint8Array },
  signer: Signer,
  moment: { nowMs: number; nonce: string },
): Record<string, string> {
  const digest = contentDigest(request.body);
  const created = Math.floor(moment.nowMs / 1000);
  const parameters: Parameters = new Map<string, string | number>([
    ['created', created],
    ['expires', created + LIMITS.requestLifetimeSecondsMax],
    ['nonce', moment.nonce],
    ['keyid', signer.keyid],
    ['alg', 'ed25519'],
    ['tag', TAG],
  ]);
  const input: InnerList = [COVERED_COMPONENTS.map((name) => [name, new Map()]), parameters];
  const base = signatureBase(
    {
      scheme: request.url.protocol === 'https:' ? 'https' : 'http',
      method: request.method,
      authority: request.url.host,
      path: request.url.pathname,
      query: request.url.search,
      header: (name) => (name === 'content-digest' ? digest : undefined),
    },
    input,
  );
  return {
    'content-digest': digest,
    'signature-input': serializeDictionary(new Map([[LABEL, input]])),
    signature: serializeDictionary(new Map([[LABEL, [signer.sign(utf8(base)), new Map()]]])),
  };
}

/**
 * Reads a request's one signature and rebuilds what it signs. Undefined when the request carries none;
 * `E_UNAUTHENTICATED` when it carries anything but exactly one well-formed Ed25519 signature over at least
 * the components Hypha requires.
 */
export function readRequestSignature(
  request: SignableRequest,
  hasBody: boolean,
): RequestSignature | undefined {
  const inputField = request.header('signature-input');
  const signatureField = request.header('signature');
  if (inputField === undefined && signatureField === undefined) return undefined;
  try {
    return parseSignature(request, inputField ?? '', signatureField ?? '', hasBody);
  } catch (cause) {
    if (cause instanceof HyphaError) throw cause;
    throw refusal('the signature headers are malformed', cause);
  }
}

function parseSignature(
  request: SignableRequest,
  inputField: string,
  signatureField: string,
  hasBody: boolean,
): RequestSignature {
  const inputs = [...parseDictionary(inputField)];
  const signatures = parseDictionary(signatureField);
  const [label, input] = inputs[0] ?? ['', undefined];
  if (inputs.length !== 1 || signatures.size !== 1 || input === undefined || !isInnerList(input)) {
    throw refusal('exactly one signature is expected');
  }
  const value = signatures.get(label)?.[0];
  if (!(value instanceof ArrayBuffer) || value.byteLength !== 64) {
    throw refusal('the signature is not 64 bytes under the label of its input');
  }
  const covered = input[0].map(([name]) => String(name));
  if (new Set(covered).size !== covered.length) throw refusal('a component is covered twice');
  for (const name of COVERED_COMPONENTS) {
    if (!covered.includes(name) && (name !== 'content-digest' || hasBody)) {
      throw refusal(`component ${name} is not covered`);
    }
  }
  const parameters = input[1];
  const { alg, keyid, nonce, created, expires, tag } = Object.fromEntries(parameters);
  if (alg !== undefined && alg !== 'ed25519') throw refusal('alg is not ed25519');
  if (tag !== undefined && tag !== TAG) throw refusal(`tag is not ${TAG}`);
  if (typeof keyid !== 'string' || typeof nonce !== 'string') {
    throw refusal('keyid and nonce are required');
  }
  if (nonce.length < NONCE_CHARS_MIN || nonce.length > NONCE_CHARS_MAX) {
    throw refusal(`nonce is not ${NONCE_CHARS_MIN} to ${NONCE_CHARS_MAX} characters`);
  }
  if (!Number.isInteger(created) || !Number.isInteger(expires)) {
    throw refusal('created and expires are required');
  }
  return {
    keyid,
    nonce,
    created: Number(created),
    expires: Number(expires),
    covered,
    base: utf8(signatureBase(request, input)),
    signature: new Uint8Array(value),
  };
}

function refusal(reason: string, cause?: unknown): HyphaError {
  return new HyphaError('E_UNAUTHENTICATED', `cannot accept the request signature: ${reason}`, {
    ...(cause === undefined ? {} : { cause }),
  });
}
