import { Authority } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Session } from './session.ts';

/** The whole chain as the ledger serves it, replayed here from the pinned genesis. */
export async function fetchAuthority(session: Session): Promise<Authority> {
  const ledger = session.ledger();
  const { envelope } = await ledger.genesis();
  let authority = Authority.fromGenesis(nodeVerifier, envelope, session.context.genesis);
  for (;;) {
    const page = await ledger.authority({ since: authority.seq });
    const next = authority.extend(page.items);
    if (next.seq === authority.seq) return authority;
    authority = next;
  }
}
