import type { Verifier } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { Store } from '@hypha/store';
import type { AuthorityMirror } from './authority-mirror.ts';
import type { ChangeFeed } from './change-feed.ts';
import type { Clock } from './clock.ts';
import type { Doorbell } from './doorbell.ts';
import type { Fleet } from './fleet.ts';
import type { LedgerFollower } from './ledger-follower.ts';
import type { RunBook } from './run-book.ts';
import type { CoordinatorDb } from './schema.ts';
import type { SettlingNodes } from './settling-nodes.ts';

/** What taking a node's outbox needs. */
export interface OutboxDeps {
  readonly store: Store<CoordinatorDb>;
  readonly verifier: Verifier;
  readonly authority: AuthorityMirror;
  readonly fleet: Fleet;
  readonly follower: LedgerFollower;
  readonly runs: RunBook;
  readonly settling: SettlingNodes;
  readonly changes: ChangeFeed;
  readonly bell: Doorbell;
  readonly clock: Clock;
  readonly log: Logger;
}
