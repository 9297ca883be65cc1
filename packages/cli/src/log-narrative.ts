import {
  type AuthorityPayload,
  fromBase64,
  keyIdOf,
  type ReceiptPayload,
  type RootKey,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { AuditedEntry } from './audit-log/entry-auditor.ts';

/** What names the keys and nodes of a log, and whose work a run was. */
export interface Narrator {
  /** By keyid or node id; the id itself when the log has no name for it. */
  readonly nameOf: (id: string) => string;
  /** Signers of the revision of a run; null when nobody can say. */
  readonly signers: readonly string[] | null;
}

const ID_CHARS = 20;

/** A log entry as one sentence: who did what, where, and how it ended. */
export function describeEntry(
  entry: Pick<AuditedEntry, 'statement' | 'keyids'>,
  narrator: Narrator,
): string {
  return printable(sentenceOf(entry, narrator));
}

/** Host names and reasons are whatever their signer chose: nothing of them may steer a terminal. */
export function printable(text: string): string {
  return text.replace(/\p{C}/gu, '?');
}

function sentenceOf(
  { statement, keyids }: Pick<AuditedEntry, 'statement' | 'keyids'>,
  { nameOf, signers }: Narrator,
): string {
  const who = listed(keyids.map((keyid) => short(nameOf(keyid))));
  switch (statement.kind) {
    case 'authority':
      return describeChange(statement.payload, who, nameOf);
    case 'admission': {
      const { name, exp, node, replaces } = statement.payload;
      const whom =
        node === undefined
          ? `a node as ${name}, by a join token good until ${dateOf(exp)}`
          : `node ${short(node)} as ${name}`;
      const place = replaces === undefined ? '' : `, in the place of ${short(replaces)}`;
      return `${who} admitted ${whom}${place}`;
    }
    case 'enrol': {
      const { node, payload } = statement;
      const place =
        payload.replaces === undefined ? '' : `, in the place of ${short(payload.replaces)}`;
      if (statement.isKnown) return `${nameOf(node)} (${short(node)}) told another sealing key`;
      return `${nameOf(node)} (${short(node)}) enrolled from ${payload.facts.hostname}${place}`;
    }
    case 'receipt': {
      const whose = signers === null ? 'an unknown signer' : listed(signers.map(nameOf).map(short));
      return describeRun(statement.payload, whose, nameOf(statement.payload.node));
    }
  }
}

/** When what an entry states took place, by whoever signed it. Epoch milliseconds. */
export function momentOf({ statement }: Pick<AuditedEntry, 'statement'>): number {
  if (statement.kind === 'receipt') return statement.payload.endedAt;
  return statement.payload.iat * 1000;
}

function describeRun(receipt: ReceiptPayload, whose: string, node: string): string {
  const { mode, realm, deployment, generation, state, steps, run } = receipt;
  const { code, undone, leftovers } = receipt;
  const outcome = [
    `${state} on ${node}${code === undefined ? '' : ` with ${code}`} after ${counted(steps, 'step')}`,
    ...(undone === 0 ? [] : [`${undone} undone`]),
    ...(leftovers.length === 0 ? [] : [`${leftovers.length} left over`]),
  ].join(', ');
  return `${whose}’s ${mode} of ${realm}/${deployment} generation ${generation} ${outcome} (${run.slice(0, 12)}…)`;
}

function describeChange(
  { change, seq }: AuthorityPayload,
  who: string,
  nameOf: (id: string) => string,
): string {
  const why = (reason: string) => (reason === '' ? '' : `: ${reason}`);
  const said = (text: string) => `${who} ${text} (authority ${seq})`;
  switch (change.type) {
    case 'genesis':
      return said(`began the fleet: ${describeRoots(change)}`);
    case 'grant': {
      const { role, name, realms, caps, nodes, notAfter, publicKey } = change.grant;
      const keyid = keyIdOf(nodeVerifier, fromBase64(publicKey));
      const all = (list: readonly string[], what: string) =>
        list.includes('*') ? `all ${what}` : `${what} ${list.join(', ') || 'none'}`;
      return said(
        `granted ${name} (${short(keyid)}) the role ${role} for ${all(realms, 'realms')}, ${all(caps, 'capabilities')}, ${all(nodes, 'nodes')}, until ${dateOf(notAfter)}`,
      );
    }
    case 'revoke':
      return said(`revoked ${nameOf(change.keyid)} (${short(change.keyid)})${why(change.reason)}`);
    case 'revoke-node':
      return said(
        `revoked the node ${nameOf(change.node)} (${short(change.node)})${why(change.reason)}`,
      );
    case 'rotate-root':
      return said(`rotated the root: ${describeRoots(change)}`);
    case 'set-ledger-key':
      return said(
        `made ${short(keyIdOf(nodeVerifier, fromBase64(change.publicKey)))} the key of the ledger`,
      );
    case 'set-policy': {
      const { signatures, checkpointMaxAge } = change.policy;
      const more = Object.entries(signatures.caps).map(([cap, count]) => `, ${count} for ${cap}`);
      return said(
        `set the policy: ${counted(signatures.default, 'signature')}${more.join('')}, checkpoints at most ${checkpointMaxAge} s old`,
      );
    }
  }
}

function describeRoots(change: {
  readonly rootKeys: readonly RootKey[];
  readonly threshold: number;
}): string {
  const { rootKeys, threshold } = change;
  return `${threshold} of ${counted(rootKeys.length, 'root key')} (${rootKeys.map(({ name }) => name).join(', ')}) must sign`;
}

function listed(names: readonly string[]): string {
  return names.join(' and ');
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

/** Ids are cut, names are whole. */
function short(id: string): string {
  return /^(?:ed25519:|node_)/.test(id) ? `${id.slice(0, ID_CHARS)}…` : id;
}

function dateOf(epochSeconds: number): string {
  return new Date(epochSeconds * 1000).toISOString();
}
