import {
  type Authority,
  type AuthorityChange,
  AuthorityPayload,
  type Envelope,
  fromBase64,
  type KeyId,
  keyIdOf,
  type Policy,
  parseStrictJson,
  type RootKey,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';

/** A change as a sentence that says who gets or loses what. */
export function describeChange(change: AuthorityChange): string {
  switch (change.type) {
    case 'genesis':
      return `genesis: ${rootSet(change)}`;
    case 'grant': {
      const { name, role, realms, caps, nodes, notAfter, publicKey } = change.grant;
      const nodeText = nodes.includes('*') ? 'all nodes' : `nodes ${nodes.join(',')}`;
      return `grant ${name}: ${role}, realms ${realms.join(',')}, caps ${caps.join(',')}, ${nodeText}, until ${dateOf(notAfter)} (${keyidOf(publicKey)})`;
    }
    case 'revoke':
      return `revoke ${change.keyid}: ${change.reason}`;
    case 'revoke-node':
      return `revoke node ${change.node}: ${change.reason}`;
    case 'rotate-root':
      return `rotate root: ${rootSet(change)}`;
    case 'set-ledger-key':
      return `the key of the ledger becomes ${keyidOf(change.publicKey)}`;
    case 'set-policy':
      return `policy: ${describePolicy(change.policy)}`;
  }
}

export function describePolicy({ checkpointMaxAge, signatures }: Policy): string {
  const more = Object.entries(signatures.caps).map(([cap, count]) => `${count} for ${cap}`);
  const count = `${signatures.default} signature${signatures.default === 1 ? '' : 's'}`;
  return `${[count, ...more].join(', ')}; checkpoints at most ${checkpointMaxAge} s old`;
}

export function changeOf(envelope: Envelope): AuthorityPayload {
  return AuthorityPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
}

/** The root keys that stand now, as the last genesis or rotation names them. */
export function rootsOf(authority: Authority): NamedKey[] {
  const changes = authority.updates.map((envelope) => changeOf(envelope).change);
  const last = changes.findLast(
    (change) => change.type === 'genesis' || change.type === 'rotate-root',
  );
  return last?.type === 'genesis' || last?.type === 'rotate-root' ? nameRoots(last.rootKeys) : [];
}

export interface NamedKey {
  readonly name: string;
  readonly keyid: KeyId;
  /** Raw. */
  readonly publicKey: Uint8Array;
}

export function nameRoots(rootKeys: readonly RootKey[]): NamedKey[] {
  return rootKeys.map(({ name, publicKey }) => ({
    name,
    keyid: keyidOf(publicKey),
    publicKey: fromBase64(publicKey),
  }));
}

function rootSet(change: { readonly rootKeys: readonly RootKey[]; readonly threshold: number }) {
  const names = change.rootKeys.map(({ name }) => name).join(', ');
  return `${change.threshold} of ${change.rootKeys.length} root keys must sign (${names})`;
}

function keyidOf(publicKey: string): KeyId {
  return keyIdOf(nodeVerifier, fromBase64(publicKey));
}

function dateOf(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 10);
}
