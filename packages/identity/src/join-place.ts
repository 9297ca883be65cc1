import { HyphaError, type JoinToken, parseJoinToken } from '@hypha/protocol';
import type { JoinDeps } from './enrolment.ts';

/** Where to join, and by what right. */
export interface Place {
  /** Digest of the genesis whose chain the ledger has to serve. */
  readonly genesis: string;
  readonly ledger: string;
  readonly coordinator: string;
  /** Undefined: an admin has to admit the node by its fingerprint. */
  readonly token: Pick<JoinToken, 'secret' | 'admission'> | undefined;
}

type PlaceDeps = Pick<JoinDeps, 'joinToken' | 'genesis' | 'ledgerUrl' | 'coordinatorUrl' | 'keys'>;

/** What cannot be read, or is missing, throws here, before any attempt: no retry would change it. */
export function findPlace(deps: PlaceDeps): Place {
  const { joinToken, genesis, ledgerUrl, coordinatorUrl, keys } = deps;
  if (joinToken !== undefined) {
    const token = parseJoinToken(joinToken);
    if (genesis !== undefined && genesis !== token.genesis) {
      throw new HyphaError('E_AUTHORITY', `the join token is for the fleet of ${token.genesis}`, {
        hint: `this node is to trust ${genesis} only: ask its admin for a token`,
      });
    }
    return {
      genesis: token.genesis,
      ledger: ledgerUrl ?? token.ledger,
      coordinator: coordinatorUrl ?? token.coordinator,
      token,
    };
  }
  if (genesis === undefined || ledgerUrl === undefined || coordinatorUrl === undefined) {
    throw new HyphaError('E_TOKEN', `node ${keys.nodeId} has joined no fleet and has no token`, {
      hint: 'ask an admin for one: hypha node add NAME; or name ledger, coordinator and genesis',
    });
  }
  return { genesis, ledger: ledgerUrl, coordinator: coordinatorUrl, token: undefined };
}
