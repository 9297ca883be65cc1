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
  /** How long the ledger has been saying that it hears nothing of the node, milliseconds. */
  readonly silentMs: number;
}

/**
 * State of a node from what the ledger says and what is seen here. An open inbox outweighs the ledger,
 * which hears of a node late (after its own restart, too), but not for ever: the connection of a machine
 * that lost its power looks open for a quarter of an hour. A node that lost its inbox a moment ago, as
 * all do when we restart, keeps what the ledger says.
 */
export function nodeState(ledgerState: NodeView['state'], presence: Presence): NodeView['state'] {
  if (presence.revoked || ledgerState === 'revoked') return 'revoked';
  if (ledgerState === 'pending') return 'pending';
  if (presence.cordoned) return 'cordoned';
  if (presence.connected) {
    return presence.silentMs < LIMITS.silenceMsMax ? 'ready' : 'unreachable';
  }
  return presence.awayMs < LIMITS.presenceGraceMs ? ledgerState : 'unreachable';
}
