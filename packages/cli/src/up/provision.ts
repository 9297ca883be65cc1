/**
 * First boot of a fleet on one machine: root, admin, operator and coordinator keys, a genesis, and what the
 * authority says of them. Every step looks first at what is there, so a crash between any two is repaired by
 * the next start.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LedgerClient } from '@hypha/client';
import {
  Authority,
  type AuthorityChange,
  buildAuthorityPayload,
  buildGenesisPayload,
  Envelope,
  type Signer,
  signAuthority,
} from '@hypha/protocol';
import { generateKey, nodeVerifier, readKeyFile, writeKeyFile } from '@hypha/protocol/node';
import { grantOf } from '../authority-signing.ts';
import type { StateLayout } from '../state-layout.ts';

export interface FleetKeys {
  readonly root: Signer;
  readonly admin: Signer;
  readonly operator: Signer;
  readonly coordinator: Signer;
}

export function keyFile(state: StateLayout, name: keyof FleetKeys): string {
  return join(state.keys, `${name}.pem`);
}

export function ensureKeys(state: StateLayout): FleetKeys {
  const ensure = (name: keyof FleetKeys): Signer => {
    const file = keyFile(state, name);
    if (!existsSync(file)) {
      // Written beside and renamed: a crash leaves no half key behind.
      const temporary = `${file}.${process.pid}.tmp`;
      writeKeyFile(temporary, generateKey().pem);
      renameSync(temporary, file);
    }
    return readKeyFile(file);
  };
  return {
    root: ensure('root'),
    admin: ensure('admin'),
    operator: ensure('operator'),
    coordinator: ensure('coordinator'),
  };
}

/** Answers the genesis hash. */
export function ensureGenesis(state: StateLayout, root: Signer, nowSeconds: number): string {
  if (!existsSync(state.genesis)) {
    const payload = buildGenesisPayload({
      rootKeys: [{ publicKey: root.publicKey, name: 'root' }],
      threshold: 1,
      nowSeconds,
    });
    writeFileSync(`${state.genesis}.tmp`, JSON.stringify(signAuthority(payload, [root])), {
      mode: 0o600,
    });
    renameSync(`${state.genesis}.tmp`, state.genesis);
  }
  const envelope = Envelope.parse(JSON.parse(readFileSync(state.genesis, 'utf8')));
  return Authority.fromGenesis(nodeVerifier, envelope).genesisHash;
}

const GRANT_DAYS = 365;

/**
 * Makes the authority say what a fleet on one machine needs, where the chain has no word on it yet: which
 * keys are the admin's, the operator's and the coordinator's, and which one is the ledger's.
 */
export async function ensureAuthority(
  ledger: LedgerClient,
  keys: FleetKeys,
  genesis: string,
  nowSeconds: number,
): Promise<void> {
  const { items } = await ledger.authority();
  const first = await ledger.genesis();
  let authority = Authority.fromGenesis(nodeVerifier, first.envelope, genesis).extend(items);
  const append = async (change: AuthorityChange, signer: Signer) => {
    const payload = buildAuthorityPayload(authority, change, nowSeconds);
    const envelope = signAuthority(payload, [signer]);
    authority = authority.apply(envelope);
    await ledger.appendAuthority(envelope);
  };
  // An admin grants operators, but within its own validity: the operator's ends a little earlier.
  const wanted = [
    { name: 'admin', signer: keys.root, days: GRANT_DAYS + 1 },
    { name: 'operator', signer: keys.admin, days: GRANT_DAYS },
    { name: 'coordinator', signer: keys.root, days: GRANT_DAYS },
  ] as const;
  for (const { name, signer, days } of wanted) {
    const { publicKey, keyid } = keys[name];
    if (authority.findKey(keyid) !== undefined) continue;
    const grant = grantOf({ publicKey, name, role: name, nowSeconds, days });
    await append({ type: 'grant', grant }, signer);
  }
  if (authority.ledgerKey === undefined) {
    // Our own ledger, on this machine: what it names as its key is not somebody else's.
    const { publicKey } = await ledger.logKey();
    await append({ type: 'set-ledger-key', publicKey }, keys.root);
  }
}
