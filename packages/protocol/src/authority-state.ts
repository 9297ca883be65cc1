import type {
  AuthorityChange,
  AuthorityPayload,
  Grant,
  Policy,
  RootKey,
} from './authority-payload.ts';
import type { Verifier } from './crypto-port.ts';
import type { Envelope } from './dsse.ts';
import { isSoundPublicKey } from './ed25519.ts';
import { fromBase64 } from './encoding.ts';
import type { ErrorCode } from './error-codes.ts';
import { HyphaError } from './hypha-error.ts';
import { type KeyId, keyIdOf } from './ids.ts';
import { isGrantWithin } from './scope.ts';

/** A key the authority has granted something, now or before. */
export interface KeyRecord {
  readonly keyid: KeyId;
  readonly publicKey: Uint8Array;
  readonly grant: Grant;
  readonly status: 'active' | 'revoked';
  /** Update that granted it last. */
  readonly grantedAtSeq: number;
  readonly revokedAtSeq?: number;
}

/** Whose signature makes a checkpoint. */
export interface LedgerKey {
  readonly keyid: KeyId;
  readonly publicKey: Uint8Array;
  /** Update that named it. */
  readonly setAtSeq: number;
}

/** What replaying a chain builds. Mutable: owned by one replay, frozen behind `Authority` afterwards. */
export interface AuthorityState {
  readonly verifier: Verifier;
  /** keyid → raw public key. */
  roots: ReadonlyMap<string, Uint8Array>;
  threshold: number;
  ledgerKey: LedgerKey | undefined;
  policy: Policy;
  readonly keys: Map<string, KeyRecord>;
  /** node id → update that revoked it. */
  readonly revokedNodes: Map<string, number>;
  /** Digest of each update, by seq. */
  readonly hashes: string[];
  readonly updates: Envelope[];
}

type ChangeOf<T extends AuthorityChange['type']> = Extract<AuthorityChange, { type: T }>;

function refuse(code: ErrorCode, seq: number, reason: string, path: string): never {
  throw new HyphaError(code, `cannot apply authority update ${seq}: ${reason}`, {
    where: { path },
  });
}

/**
 * Whether these signers may make this change under the state before it (design §8): roots at their
 * threshold may do anything, a key may always revoke itself, and an admin may grant and revoke operators
 * and viewers and revoke nodes, all within its own bounds and never touching an admin.
 */
export function checkMayChange(
  state: AuthorityState,
  update: AuthorityPayload,
  keyids: readonly string[],
): void {
  const { change, seq } = update;
  const roots = keyids.filter((keyid) => state.roots.has(keyid)).length;
  if (roots >= state.threshold) {
    if (change.type === 'rotate-root') checkNewRootsSigned(state, change, seq, keyids);
    return;
  }
  if (change.type === 'revoke' && keyids.includes(change.keyid)) return;
  const admins = keyids.flatMap((keyid) => {
    const record = state.keys.get(keyid);
    return record?.grant.role === 'admin' ? [record] : [];
  });
  if (admins.length === 0) {
    refuse(
      'E_AUTHORITY',
      seq,
      `it has ${roots} of ${state.threshold} root signatures`,
      'signatures',
    );
  }
  const inTime = admins.filter(({ grant }) => isInTime(grant, update.iat));
  if (inTime.length === 0) {
    refuse('E_KEY_EXPIRED', seq, 'the admin key is outside its validity at iat', 'signatures');
  }
  if (!inTime.some(({ grant }) => mayAdminChange(state, grant, update))) {
    refuse('E_SCOPE', seq, `the change is outside what the admin may do`, 'change');
  }
}

function checkNewRootsSigned(
  state: AuthorityState,
  change: ChangeOf<'rotate-root'>,
  seq: number,
  keyids: readonly string[],
): void {
  const roots = readRoots(state.verifier, change, seq);
  const signed = keyids.filter((keyid) => roots.has(keyid)).length;
  if (signed >= change.threshold) return;
  refuse(
    'E_AUTHORITY',
    seq,
    `it has ${signed} of ${change.threshold} signatures of the new root keys`,
    'signatures',
  );
}

function mayAdminChange(
  state: AuthorityState,
  admin: Grant,
  { change, seq }: AuthorityPayload,
): boolean {
  const mayGovern = (grant: Grant): boolean =>
    (grant.role === 'operator' || grant.role === 'viewer') && isGrantWithin(admin, grant);
  switch (change.type) {
    case 'grant': {
      const publicKey = decodeKey(change.grant.publicKey, seq, 'change.grant.publicKey');
      const before = state.keys.get(keyIdOf(state.verifier, publicKey));
      return mayGovern(change.grant) && (before === undefined || mayGovern(before.grant));
    }
    case 'revoke': {
      const target = state.keys.get(change.keyid);
      return target !== undefined && mayGovern(target.grant);
    }
    case 'revoke-node':
      return admin.nodes.includes('*') || admin.nodes.includes(change.node);
    case 'genesis':
    case 'rotate-root':
    case 'set-ledger-key':
    case 'set-policy':
      return false;
  }
}

export function isInTime(grant: Grant, seconds: number): boolean {
  return grant.notBefore <= seconds && seconds <= grant.notAfter;
}

/** Changes the state, or throws and leaves it as it was. Whoever signed was checked before. */
export function applyChange(state: AuthorityState, seq: number, change: AuthorityChange): void {
  switch (change.type) {
    case 'grant':
      applyGrant(state, seq, change);
      break;
    case 'revoke':
      applyRevoke(state, seq, change);
      break;
    case 'revoke-node':
      applyRevokeNode(state, seq, change);
      break;
    case 'rotate-root':
      applyRotateRoot(state, seq, change);
      break;
    case 'set-ledger-key':
      applySetLedgerKey(state, seq, change);
      break;
    case 'set-policy':
      state.policy = change.policy;
      break;
    case 'genesis':
      refuse('E_AUTHORITY', seq, 'only the first update can be a genesis', 'change.type');
  }
}

function applyGrant(state: AuthorityState, seq: number, { grant }: ChangeOf<'grant'>): void {
  const publicKey = decodeKey(grant.publicKey, seq, 'change.grant.publicKey');
  const keyid = keyIdOf(state.verifier, publicKey);
  const before = state.keys.get(keyid);
  if (grant.notBefore > grant.notAfter)
    refuse('E_AUTHORITY', seq, 'notBefore is after notAfter', 'change.grant.notBefore');
  // One key, one role: what a stolen key can do must be readable from one grant.
  if (state.roots.has(keyid))
    refuse('E_AUTHORITY', seq, `${keyid} is a root key`, 'change.grant.publicKey');
  if (state.ledgerKey?.keyid === keyid)
    refuse('E_AUTHORITY', seq, `${keyid} is the key of the ledger`, 'change.grant.publicKey');
  if (before !== undefined && before.grant.role !== grant.role)
    refuse('E_AUTHORITY', seq, `${keyid} has the role ${before.grant.role}`, 'change.grant.role');
  if (before?.status === 'revoked')
    refuse('E_KEY_REVOKED', seq, `${keyid} was revoked`, 'change.grant.publicKey');
  state.keys.set(keyid, { keyid, publicKey, grant, status: 'active', grantedAtSeq: seq });
}

function applyRevoke(state: AuthorityState, seq: number, { keyid }: ChangeOf<'revoke'>): void {
  const record = state.keys.get(keyid);
  if (record === undefined)
    refuse('E_AUTHORITY', seq, `${keyid} was never granted anything`, 'change.keyid');
  if (record.status === 'revoked')
    refuse('E_AUTHORITY', seq, `${keyid} is revoked already`, 'change.keyid');
  state.keys.set(keyid, { ...record, status: 'revoked', revokedAtSeq: seq });
}

function applyRevokeNode(
  state: AuthorityState,
  seq: number,
  { node }: ChangeOf<'revoke-node'>,
): void {
  if (state.revokedNodes.has(node))
    refuse('E_AUTHORITY', seq, `${node} is revoked already`, 'change.node');
  state.revokedNodes.set(node, seq);
}

function applyRotateRoot(
  state: AuthorityState,
  seq: number,
  change: ChangeOf<'rotate-root'>,
): void {
  const roots = readRoots(state.verifier, change, seq);
  for (const keyid of roots.keys()) {
    if (state.keys.has(keyid) || state.ledgerKey?.keyid === keyid)
      refuse('E_AUTHORITY', seq, `${keyid} has another role`, 'change.rootKeys');
  }
  state.roots = roots;
  state.threshold = change.threshold;
}

function applySetLedgerKey(
  state: AuthorityState,
  seq: number,
  change: ChangeOf<'set-ledger-key'>,
): void {
  const publicKey = decodeKey(change.publicKey, seq, 'change.publicKey');
  const keyid = keyIdOf(state.verifier, publicKey);
  if (state.roots.has(keyid) || state.keys.has(keyid))
    refuse('E_AUTHORITY', seq, `${keyid} has another role`, 'change.publicKey');
  if (state.ledgerKey?.keyid === keyid)
    refuse('E_AUTHORITY', seq, `${keyid} is the key of the ledger already`, 'change.publicKey');
  state.ledgerKey = { keyid, publicKey, setAtSeq: seq };
}

/**
 * keyid → raw key of a set of roots that a genesis or a rotation names.
 * @throws HyphaError `E_WEAK_KEY`; `E_AUTHORITY` for a key named twice or a threshold nobody can reach
 */
export function readRoots(
  verifier: Verifier,
  { rootKeys, threshold }: { readonly rootKeys: readonly RootKey[]; readonly threshold: number },
  seq: number,
): Map<string, Uint8Array> {
  const roots = new Map<string, Uint8Array>();
  rootKeys.forEach((root, index) => {
    const publicKey = decodeKey(root.publicKey, seq, `change.rootKeys.${index}.publicKey`);
    roots.set(keyIdOf(verifier, publicKey), publicKey);
  });
  if (roots.size !== rootKeys.length || threshold > roots.size) {
    refuse(
      'E_AUTHORITY',
      seq,
      `it names ${roots.size} distinct root keys and the threshold ${threshold}`,
      'change.threshold',
    );
  }
  return roots;
}

/** Base64 of a public key to its bytes. Throws `E_WEAK_KEY` on one that must not be registered. */
export function decodeKey(text: string, seq: number, path: string): Uint8Array {
  let publicKey: Uint8Array | undefined;
  try {
    publicKey = fromBase64(text);
  } catch {
    publicKey = undefined;
  }
  if (publicKey === undefined || !isSoundPublicKey(publicKey))
    return refuse('E_WEAK_KEY', seq, 'it names a key that is not sound', path);
  return publicKey;
}
