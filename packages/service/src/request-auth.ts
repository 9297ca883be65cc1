import { BlockList, isIP } from 'node:net';
import {
  contentDigest,
  readRequestSignature,
  type SignableRequest,
} from '@hypha/client/request-signature';
import { findSignatureFault, HyphaError, LIMITS, nodeIdOf } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { parseDictionary } from 'structured-headers';
import type { WallClock } from './clock.ts';
import type { NonceMemory } from './nonce-memory.ts';

/**
 * Who may call a route (design §9).
 * - `public`: anyone; a signature is not looked at.
 * - `read`: any known key; unsigned only from this machine.
 * - `node`: the node that the path names as `:id`, by its own key.
 * - `service`: any known key; the handler decides by `caller`.
 */
export type RouteAuth = 'public' | 'read' | 'node' | 'service';

/** Whose valid signature a request carries. */
export interface Caller {
  readonly keyid: string;
  readonly publicKey: Uint8Array;
  /** The id a node with this key has; says nothing about whether it is one. */
  readonly nodeId: string;
}

/** Raw Ed25519 public key of a key that may sign requests here. */
export type FindKey = (keyid: string) => Uint8Array | undefined | Promise<Uint8Array | undefined>;

export interface AuthRequest extends SignableRequest {
  /** Exact bytes as received; empty when there is none. */
  readonly body: Uint8Array;
  readonly peerAddress: string;
  /** `:id` of the path. */
  readonly pathId: string | undefined;
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

export class RequestAuthenticator {
  readonly #findKey: FindKey;
  readonly #nonces: NonceMemory;
  readonly #clock: WallClock;

  constructor(deps: { findKey: FindKey; nonces: NonceMemory; clock: WallClock }) {
    this.#findKey = deps.findKey;
    this.#nonces = deps.nonces;
    this.#clock = deps.clock;
  }

  /** Throws `E_UNAUTHENTICATED`, or `E_FORBIDDEN` for a good signature by the wrong key. */
  async authenticate(auth: RouteAuth, request: AuthRequest): Promise<Caller | undefined> {
    if (auth === 'public') return undefined;
    const caller = await this.#verify(request);
    if (caller === undefined) {
      if (auth === 'read' && isLocal(request)) return undefined;
      throw new HyphaError(
        'E_UNAUTHENTICATED',
        `${request.method} ${request.path} needs a signed request`,
      );
    }
    if (auth === 'node' && caller.nodeId !== request.pathId) {
      throw new HyphaError(
        'E_FORBIDDEN',
        `key ${caller.keyid} is that of ${caller.nodeId}, not of ${request.pathId}`,
      );
    }
    return caller;
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
    checkContentDigest(request, claim.covered);
    const publicKey = await this.#findKey(keyid);
    if (publicKey === undefined) throw refuse(`key ${keyid} is not known here`);
    const { base: message, signature } = claim;
    if (findSignatureFault(nodeVerifier, { publicKey, message, signature }) !== undefined) {
      throw refuse(`it does not verify under key ${keyid}`);
    }
    const use = this.#nonces.use(keyid, nonce, expires, nowSeconds);
    if (use === 'used') throw refuse(`its nonce was used before by key ${keyid}`);
    if (use === 'full') {
      throw new HyphaError('E_UNAVAILABLE', 'too many signed requests within a minute');
    }
    return { keyid, publicKey, nodeId: nodeIdOf(nodeVerifier, publicKey) };
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

function refuse(reason: string, options: { hint?: string; cause?: unknown } = {}): HyphaError {
  return new HyphaError(
    'E_UNAUTHENTICATED',
    `cannot accept the request signature: ${reason}`,
    options,
  );
}

/**
 * A peer on this machine that also names this machine: a web page that had its own name resolved to
 * 127.0.0.1 sends that name as `Host`, and one that posts to us from elsewhere sends its `Origin`.
 */
function isLocal(request: AuthRequest): boolean {
  const address = request.peerAddress.replace(/^::ffff:/, '');
  const family = isIP(address);
  if (family === 0 || !LOOPBACK.check(address, family === 6 ? 'ipv6' : 'ipv4')) return false;
  if (!namesMachine(request.authority)) return false;
  const origin = request.header('origin');
  return origin === undefined || namesMachine(origin.replace(/^https?:\/\//, ''));
}

function namesMachine(authority: string): boolean {
  const host = authority.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  return host === 'localhost' || isIP(host) !== 0;
}
