import { HyphaError } from '@hypha/protocol';
import { type Caller, type FindKey, grantedKey, nodeKey } from '@hypha/service';
import type { AuthorityMirror } from '../authority-mirror.ts';
import type { Clock } from '../clock.ts';
import type { Fleet } from '../fleet.ts';
import type { LedgerFollower } from '../ledger-follower.ts';

interface KeyRing {
  readonly authority: AuthorityMirror;
  readonly fleet: Fleet;
  readonly follower: LedgerFollower;
  readonly clock: Clock;
}

/** Keys that may sign requests here: those the authority grants something now, and those of nodes. */
export function callerKeys({ authority, fleet, follower, clock }: KeyRing): FindKey {
  const findGranted = (keyid: string) => {
    const known = authority.find();
    if (known === undefined) return undefined;
    return grantedKey(known, keyid, Math.floor(clock.nowMs() / 1000));
  };
  return async (keyid) => {
    const granted = findGranted(keyid);
    if (granted !== undefined) return granted;
    const node = nodeOf(keyid);
    if (node === undefined) return undefined;
    if (fleet.find(node) === undefined) {
      // A node that enrolled a moment ago, or a key that was granted something: the ledger knows.
      await Promise.all([follower.learnNode(node), follower.learnKey()]);
      const learned = findGranted(keyid);
      if (learned !== undefined) return learned;
    }
    const view = fleet.findActing(node);
    return view === undefined ? undefined : nodeKey(view);
  };
}

/** A node's id is the beginning of its key's (design §8). */
function nodeOf(keyid: string): string | undefined {
  const match = /^ed25519:([a-z2-7]{32})[a-z2-7]{20}$/.exec(keyid);
  return match?.[1] === undefined ? undefined : `node_${match[1]}`;
}

/** Throws `E_FORBIDDEN` for a key whose grant does not cover the node. */
export function checkSayAbout(caller: Caller | undefined, node: string): void {
  if (caller === undefined || caller.nodes.includes('*') || caller.nodes.includes(node)) return;
  throw new HyphaError('E_FORBIDDEN', `key ${caller.name} has no say about ${node}`, {
    where: { path: node },
  });
}
