import { HyphaError, type Role } from '@hypha/protocol';
import type { Caller, FindKey } from '@hypha/service';
import type { AuthorityMirror } from '../authority-mirror.ts';
import type { Fleet } from '../fleet.ts';
import type { LedgerFollower } from '../ledger-follower.ts';

interface KeyRing {
  readonly authority: AuthorityMirror;
  readonly fleet: Fleet;
  readonly follower: LedgerFollower;
}

/** Keys that may sign requests here: those the authority grants something, and those of nodes. */
export function callerKeys({ authority, fleet, follower }: KeyRing): FindKey {
  return async (keyid) => {
    const record = authority.find()?.findKey(keyid);
    if (record !== undefined) return record.status === 'active' ? record.publicKey : undefined;
    const node = nodeOf(keyid);
    if (node === undefined) return undefined;
    // A node that enrolled a moment ago is asked for at the ledger.
    if (fleet.find(node) === undefined) await follower.learnNode(node);
    return fleet.findKey(node);
  };
}

/** A node's id is the beginning of its key's (design §8). */
function nodeOf(keyid: string): string | undefined {
  const match = /^ed25519:([a-z2-7]{32})[a-z2-7]{20}$/.exec(keyid);
  return match?.[1] === undefined ? undefined : `node_${match[1]}`;
}

/**
 * Who asks may be anyone on this machine, or a key with one of these roles, in its time. Throws
 * `E_FORBIDDEN`.
 */
export function checkRole(
  caller: Caller | undefined,
  roles: readonly Role[],
  context: {
    readonly authority: AuthorityMirror;
    readonly nowSeconds: number;
    readonly node?: string;
  },
): void {
  if (caller === undefined) return;
  const { nowSeconds, node } = context;
  const grant = context.authority.find()?.findKey(caller.keyid)?.grant;
  const inTime =
    grant !== undefined && grant.notBefore <= nowSeconds && nowSeconds <= grant.notAfter;
  if (!inTime || !roles.includes(grant.role)) {
    throw new HyphaError('E_FORBIDDEN', `key ${caller.keyid} is not one of: ${roles.join(', ')}`, {
      where: { path: roles.join(',') },
    });
  }
  if (node !== undefined && !grant.nodes.includes('*') && !grant.nodes.includes(node)) {
    throw new HyphaError('E_FORBIDDEN', `key ${grant.name} has no say about ${node}`, {
      where: { path: node },
    });
  }
}
