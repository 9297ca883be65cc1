import {
  contentDigest,
  readRequestSignature,
  type SignableRequest,
} from '@hypha/client/request-signature';
import { findSignatureFault, HyphaError, LIMITS, nodeIdOf } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { parseDictionary } from 'structured-headers';
import type { Caller, CallerRole, FindKey } from './caller.ts';
import type { WallClock } from './clock.ts';
import type { NonceMemory } from './nonce-memory.ts';

/**
 * Who may call a route (design §9).
 * - `public`: anyone; a signature is not looked at.
 * - `node`: the node that the path names as `:id`, by its own key.
 * - `roles`: a key with one of these roles.
 */
export type RouteAuth = 'public' | 'node' | { readonly roles: readonly CallerRole[] };

export interface AuthRequest extends SignableRequest {
  /** Exact bytes as received; empty when there is none. */
  readonly body: Uint8Array;
  /** `:id` of the path. */
  readonly pathId: string | undefined;
}

const UNSIGNED_HINT =
  'sign it (RFC 9421) with a granted key; hypha uses keys.operator of the context, or else keys.admin';
const UNKNOWN_HINT = 'ask an admin: hypha authority grant; a view of the authority may be behind';

export class RequestAuthenticator {
  readonly #findKey: FindKey;
  readonly #nonces: NonceMemory;
  readonly #clock: WallClock;
  /** Seconds since 1970; signatures made before are refused. */
  #since = Number.NEGATIVE_INFINITY;

  constructor(deps: { findKey: FindKey; nonces: NonceMemory; clock: WallClock }) {
    this.#findKey = deps.findKey;
    this.#nonces = deps.nonces;
    this.#clock = deps.clock;
  }

  /**
   * From now on. What was signed before may have been used at a process before this one, whose memory of
   * nonces is gone; the refusal says so in `details.signedFrom`, and clients sign again.
   */
  start(): void {
    this.#since = Math.floor(this.#clock.nowMs() / 1000);
  }

  /** Throws `E_UNAUTHENTICATED`, or `E_FORBIDDEN` for a good signature by the wrong key. */
  async authenticate(auth: RouteAuth, request: AuthRequest): Promise<Caller | undefined> {
    if (auth === 'public') return undefined;
    const caller = await this.#verify(request);
    if (caller === undefined) {
      throw new HyphaError(
        'E_UNAUTHENTICATED',
        `${request.method} ${request.path} needs a signed request`,
        { hint: UNSIGNED_HINT },
      );
    }
    checkMayCall(auth, caller, request);
    return caller;
  }

  /**
   * Whether a caller that was let in would be let in again with the same rights: its key may have been
   * revoked since, its time be over, or its grant be another one.
   */
  async mayStay(caller: Caller): Promise<boolean> {
    try {
      const key = await this.#findKey(caller.keyid);
      if (key === undefined || key.role !== caller.role) return false;
      return isEqualList(key.realms, caller.realms) && isEqualList(key.nodes, caller.nodes);
    } catch (error) {
      // Who cannot say who may call cannot say either who may not.
      return error instanceof HyphaError && error.retryable;
    }
  }

  async #verify(request: AuthRequest): Promise<Caller | undefined> {
    const claim = readRequestSignature(request, request.body.length > 0);
    if (claim === undefined) return undefined;
    const nowSeconds = Math.floor(this.#clock.nowMs() / 1000);
    const { keyid, created, expires, nonce } = claim;
    if (expires - created > LIMITS.requestLifetimeSecondsMax || expires < created) {
      throw refuse(`its lifetime is over ${LIMITS.requestLifetimeSecondsMax} seconds`);
    }
    if (created > nowSeconds + LIMITS.skewSeconds || expires < nowSeconds) {
      throw refuse(`it is valid from ${created} to ${expires}, the time here is ${nowSeconds}`, {
        hint: 'compare the clocks (NTP) and sign the request anew',
      });
    }
    if (created < this.#since) {
      throw refuse(`it was made at ${created}, this service started at ${this.#since}`, {
        hint: 'sign again',
        details: { signedFrom: this.#since },
      });
    }
    checkContentDigest(request, claim.covered);
    const key = await this.#findKey(keyid);
    if (key === undefined) {
      throw refuse(`key ${keyid} is not known here`, { hint: UNKNOWN_HINT });
    }
    const { publicKey } = key;
    const { base: message, signature } = claim;
    if (findSignatureFault(nodeVerifier, { publicKey, message, signature }) !== undefined) {
      throw refuse(`it does not verify under key ${keyid}`);
    }
    const use = this.#nonces.use(keyid, nonce, expires, nowSeconds);
    if (use === 'used') throw refuse(`its nonce was used before by key ${keyid}`);
    if (use === 'full') {
      throw new HyphaError('E_UNAVAILABLE', 'too many signed requests within a minute');
    }
    return { ...key, keyid, nodeId: nodeIdOf(nodeVerifier, publicKey) };
  }
}

/** RFC 9530: the SHA-256 has to be there and to match; other algorithms are not looked at. */
function checkContentDigest(request: AuthRequest, covered: readonly string[]): void {
  const field = request.header('content-digest');
  if (field === undefined && !covered.includes('content-digest')) return;
  let stated: unknown;
  try {
    stated = parseDictionary(field ?? '').get('sha-256')?.[0];
  } catch (cause) {
    throw refuse('content-digest is malformed', { cause });
  }
  const expected = contentDigest(request.body);
  const matches =
    stated instanceof ArrayBuffer &&
    `sha-256=:${Buffer.from(stated).toString('base64')}:` === expected;
  if (!matches) throw refuse('content-digest is not that of the body');
}

function refuse(
  reason: string,
  options: { hint?: string; cause?: unknown; details?: unknown } = {},
): HyphaError {
  return new HyphaError(
    'E_UNAUTHENTICATED',
    `cannot accept the request signature: ${reason}`,
    options,
  );
}

function checkMayCall(
  auth: 'node' | Exclude<RouteAuth, string>,
  caller: Caller,
  request: AuthRequest,
) {
  const { keyid, role, name, nodeId } = caller;
  if (auth === 'node') {
    if (role === 'node' && nodeId === request.pathId) return;
    throw new HyphaError(
      'E_FORBIDDEN',
      `key ${keyid} is that of ${role} ${name}, not that of ${request.pathId}`,
      { where: { path: 'node' }, hint: 'only the node itself may call this' },
    );
  }
  if (auth.roles.includes(role)) return;
  throw new HyphaError(
    'E_FORBIDDEN',
    `key ${keyid} (${name}) is ${role}, and ${request.method} ${request.path} is for ${auth.roles.join(', ')}`,
    { where: { path: auth.roles.join(',') } },
  );
}

function isEqualList(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((item, index) => item === other[index]);
}
