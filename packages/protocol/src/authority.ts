/**
 * The authority: which key may do what, as the result of replaying a hash chain of signed updates that
 * starts at a pinned genesis (design §8). Whoever stores or carries the chain can withhold its end but
 * can neither add to it nor rewrite it.
 *
 * Invariants: A1 each update is checked under the state before it. A2 an update is contained once, by
 * digest. A3 a chain only grows: another update at a seq that is taken is a fork and is refused.
 */
import { AuthorityPayload, Policy } from './authority-payload.ts';
import {
  type AuthorityState,
  applyChange,
  checkMayChange,
  isInTime,
  type KeyRecord,
  type LedgerKey,
  readRoots,
} from './authority-state.ts';
import type { Verifier } from './crypto-port.ts';
import type { Envelope } from './dsse.ts';
import { HyphaError } from './hypha-error.ts';
import { LIMITS } from './limits.ts';
import { type OpenedEnvelope, openEnvelope, verifyOpened } from './verify-envelope.ts';
import { parseJsonAs } from './wire.ts';

/** Given by whoever accepts a new update from its signer: it must be of now, not of some past. */
export interface AcceptOptions {
  /** Wall clock, seconds since 1970. Absent when following a chain: its past cannot be dated. */
  readonly nowSeconds?: number;
}

export class Authority {
  readonly #state: AuthorityState;

  private constructor(state: AuthorityState) {
    this.#state = state;
  }

  /**
   * @param expectedHash the pinned digest; without it any well-made genesis passes
   * @throws HyphaError `E_AUTHORITY` and the codes of `verifyEnvelope`
   */
  static fromGenesis(verifier: Verifier, envelope: Envelope, expectedHash?: string): Authority {
    const opened = openEnvelope(verifier, envelope, 'authority');
    if (expectedHash !== undefined && opened.digest !== expectedHash) {
      throw new HyphaError(
        'E_AUTHORITY',
        `genesis ${opened.digest} is not the pinned ${expectedHash}`,
        { hint: 'this is another fleet: check the address, or pin its genesis anew' },
      );
    }
    // The keys that must have signed are named inside: which set of keys this is, is what the pin decides.
    const { change, seq, prev } = parsePayload(opened.payload);
    if (change.type !== 'genesis' || seq !== 0 || prev !== null) {
      throw new HyphaError('E_AUTHORITY', `authority update ${opened.digest} is not a genesis`, {
        where: { path: 'change.type' },
      });
    }
    const roots = readRoots(verifier, change, 0);
    const { keyids, digest } = verifyOpened(verifier, opened, (keyid) => roots.get(keyid));
    if (keyids.length < change.threshold) {
      throw new HyphaError(
        'E_AUTHORITY',
        `genesis ${digest} has ${keyids.length} of ${change.threshold} root signatures`,
        { where: { path: 'signatures' } },
      );
    }
    return new Authority({
      verifier,
      roots,
      threshold: change.threshold,
      ledgerKey: undefined,
      policy: Policy.parse({}),
      keys: new Map(),
      revokedNodes: new Map(),
      hashes: [digest],
      updates: [envelope],
    });
  }

  /** A whole chain, genesis first. */
  static replay(
    verifier: Verifier,
    chain: readonly Envelope[],
    expectedGenesisHash?: string,
  ): Authority {
    const [genesis, ...rest] = chain;
    if (genesis === undefined)
      throw new HyphaError('E_AUTHORITY', 'cannot replay an empty authority chain');
    return Authority.fromGenesis(verifier, genesis, expectedGenesisHash).extend(rest);
  }

  get genesisHash(): string {
    return this.hashAt(0) ?? '';
  }

  /** Number of the newest update; genesis is 0. */
  get seq(): number {
    return this.#state.hashes.length - 1;
  }

  /** Digest of the newest update. */
  get head(): string {
    return this.hashAt(this.seq) ?? '';
  }

  /** Genesis first. */
  get updates(): readonly Envelope[] {
    return this.#state.updates;
  }

  get threshold(): number {
    return this.#state.threshold;
  }

  get rootKeyIds(): readonly string[] {
    return [...this.#state.roots.keys()];
  }

  /** Undefined until `set-ledger-key`: then no checkpoint counts, and nothing new is admitted. */
  get ledgerKey(): LedgerKey | undefined {
    return this.#state.ledgerKey;
  }

  /** The newest `set-policy`, else the defaults. */
  get policy(): Policy {
    return this.#state.policy;
  }

  hashAt(seq: number): string | undefined {
    return this.#state.hashes[seq];
  }

  findKey(keyid: string): KeyRecord | undefined {
    return this.#state.keys.get(keyid);
  }

  /** Granted keys, revoked ones too, in the order they were first granted. */
  listKeys(): readonly KeyRecord[] {
    return [...this.#state.keys.values()];
  }

  isNodeRevoked(nodeId: string): boolean {
    return this.#state.revokedNodes.has(nodeId);
  }

  /** The state as it was after update `seq`. Throws `E_STALE_VIEW` when the chain does not reach it. */
  at(seq: number): Authority {
    if (seq === this.seq) return this;
    if (seq > this.seq) {
      throw new HyphaError('E_STALE_VIEW', `authority ends at ${this.seq}, asked for ${seq}`);
    }
    return Authority.replay(this.#state.verifier, this.#state.updates.slice(0, seq + 1));
  }

  /**
   * The next state.
   * @throws HyphaError `E_AUTHORITY` on a gap, fork or rollback (`details.reason`) or too few root
   *   signatures; `E_SCOPE`, `E_KEY_REVOKED`, `E_KEY_EXPIRED`, `E_WEAK_KEY`; the codes of `verifyEnvelope`
   */
  apply(envelope: Envelope, options: AcceptOptions = {}): Authority {
    const state = copyState(this.#state);
    append(state, openEnvelope(state.verifier, envelope, 'authority'), envelope, options);
    return new Authority(state);
  }

  /** All or none. Updates already contained are skipped wherever they stand; new ones come in order. */
  extend(envelopes: readonly Envelope[]): Authority {
    const state = copyState(this.#state);
    const contained = new Set(state.hashes);
    for (const envelope of envelopes) {
      const opened = openEnvelope(state.verifier, envelope, 'authority');
      if (contained.has(opened.digest)) continue;
      append(state, opened, envelope, {});
      contained.add(opened.digest);
    }
    return state.hashes.length === this.#state.hashes.length ? this : new Authority(state);
  }
}

function append(
  state: AuthorityState,
  opened: OpenedEnvelope,
  envelope: Envelope,
  options: AcceptOptions,
): void {
  const incoming = readIncomingRoots(state, opened);
  const { payload, digest, keyids } = verifyOpened(
    state.verifier,
    opened,
    (keyid) => findSigner(state, keyid) ?? incoming.get(keyid),
  );
  const update = parsePayload(payload);
  checkFollows(state, update, digest);
  if (options.nowSeconds !== undefined) checkIsOfNow(state, update, keyids, options.nowSeconds);
  checkMayChange(state, update, keyids);
  applyChange(state, update.seq, update.change);
  state.hashes.push(digest);
  state.updates.push(envelope);
}

function parsePayload(payload: Uint8Array): AuthorityPayload {
  return parseJsonAs(AuthorityPayload, payload, {
    code: 'E_PAYLOAD',
    what: 'the authority update',
    integersOnly: true,
  });
}

/**
 * Keys that a rotation names sign it too, so they are read before anything is verified. That decides only
 * who may count; the old roots have to have signed these very bytes.
 */
function readIncomingRoots(
  state: AuthorityState,
  { payload }: OpenedEnvelope,
): ReadonlyMap<string, Uint8Array> {
  let update: AuthorityPayload;
  try {
    update = parsePayload(payload);
  } catch {
    // Read again once its signatures hold: that it is malformed is news only then.
    return new Map();
  }
  const { change, seq } = update;
  return change.type === 'rotate-root' ? readRoots(state.verifier, change, seq) : new Map();
}

function findSigner(state: AuthorityState, keyid: string): Uint8Array | undefined {
  const root = state.roots.get(keyid);
  if (root !== undefined) return root;
  const record = state.keys.get(keyid);
  if (record?.status === 'revoked') {
    throw new HyphaError(
      'E_KEY_REVOKED',
      `key ${record.grant.name} (${keyid}) was revoked by authority update ${record.revokedAtSeq}`,
    );
  }
  return record?.publicKey;
}

function checkFollows(state: AuthorityState, update: AuthorityPayload, digest: string): void {
  const seq = state.hashes.length;
  const head = state.hashes[seq - 1];
  if (update.seq === seq && update.prev === head) return;
  const reason = update.seq > seq ? 'gap' : 'fork';
  throw new HyphaError(
    'E_AUTHORITY',
    reason === 'gap'
      ? `authority update ${update.seq} does not follow ${seq - 1}: some are missing`
      : `authority update ${update.seq} (${digest}) is on another branch than ${head}`,
    {
      where: { path: update.seq === seq ? 'prev' : 'seq' },
      details: { reason, seq: update.seq, digest, prev: update.prev, ours: { seq: seq - 1, head } },
    },
  );
}

/** An expired admin key must not date its update back to when it was valid. */
function checkIsOfNow(
  state: AuthorityState,
  update: AuthorityPayload,
  keyids: readonly string[],
  nowSeconds: number,
): void {
  if (update.iat > nowSeconds + LIMITS.skewSeconds) {
    throw new HyphaError(
      'E_NOT_YET',
      `authority update ${update.seq} is dated ${update.iat}, now is ${nowSeconds}`,
      { where: { path: 'iat' } },
    );
  }
  for (const keyid of keyids) {
    const record = state.keys.get(keyid);
    if (record === undefined || isInTime(record.grant, nowSeconds)) continue;
    if (update.change.type === 'revoke' && update.change.keyid === keyid) continue;
    throw new HyphaError(
      'E_KEY_EXPIRED',
      `key ${record.grant.name} (${keyid}) is outside its validity`,
      { where: { path: 'signatures' } },
    );
  }
}

function copyState(state: AuthorityState): AuthorityState {
  return {
    ...state,
    keys: new Map(state.keys),
    revokedNodes: new Map(state.revokedNodes),
    hashes: [...state.hashes],
    updates: [...state.updates],
  };
}
