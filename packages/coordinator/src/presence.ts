import type { NodeView } from '@hypha/protocol';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';

/** What the coordinator itself knows of a node. */
export interface Presence {
  readonly revoked: boolean;
  readonly cordoned: boolean;
  /** Its inbox is open here. */
  readonly connected: boolean;
  /** How long its inbox has been closed, milliseconds; since the start for one not seen since. */
  readonly awayMs: number;
}

/**
 * State of a node from what the ledger says and what is seen here. An open inbox outweighs the ledger,
 * whose reports lag; a node that lost its inbox a moment ago (both restart) keeps what the ledger says.
 */
export function nodeState(ledgerState: NodeView['state'], presence: Presence): NodeView['state'] {
  if (presence.revoked || ledgerState === 'revoked') return 'revoked';
  if (ledgerState === 'pending') return 'pending';
  if (presence.cordoned) return 'cordoned';
  if (presence.connected) return 'ready';
  return presence.awayMs < LIMITS.presenceGraceMs ? ledgerState : 'unreachable';
}
