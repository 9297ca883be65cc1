import {
  type Authority,
  findUncovered,
  findUsableKey,
  fromBase64,
  type NodeView,
  type Role,
} from '@hypha/protocol';

/** What a key is here: what the authority grants it, or the key of an enrolled node. */
export type CallerRole = Role | 'node';

/** A key that may sign requests, and how far. */
export interface CallerKey {
  readonly publicKey: Uint8Array;
  readonly role: CallerRole;
  /** Of the grant or of the node, for messages. */
  readonly name: string;
  /** Realms it may read; `*` is all. */
  readonly realms: readonly string[];
  /** Nodes it has a say about, by id; `*` is all. */
  readonly nodes: readonly string[];
}

/** Whose valid signature a request carries. */
export interface Caller extends CallerKey {
  readonly keyid: string;
  /** The id a node with this key has; says nothing about whether it is one. */
  readonly nodeId: string;
}

/**
 * The key with this keyid, undefined when it may sign nothing here. May throw: the request is then refused
 * with what it throws.
 */
export type FindKey = (keyid: string) => CallerKey | undefined | Promise<CallerKey | undefined>;

/** Keys that people read with. */
export const READERS = ['admin', 'operator', 'viewer'] as const satisfies readonly CallerRole[];

/**
 * What the authority grants a key now; undefined when it has never heard of it.
 * @throws HyphaError `E_KEY_REVOKED`, `E_KEY_EXPIRED`
 */
export function grantedKey(
  authority: Authority,
  keyid: string,
  nowSeconds: number,
): CallerKey | undefined {
  const record = findUsableKey(authority, keyid, nowSeconds);
  if (record === undefined) return undefined;
  const { role, name, realms, nodes } = record.grant;
  return { publicKey: record.publicKey, role, name, realms, nodes };
}

/** The key of an enrolled node that may still act: it has a say about itself. */
export function nodeKey(node: Pick<NodeView, 'id' | 'name' | 'publicKey' | 'realms'>): CallerKey {
  const { id, name, publicKey, realms } = node;
  return { publicKey: fromBase64(publicKey), role: 'node', name, realms, nodes: [id] };
}

/** Whether things of this realm are there for the caller. */
export function mayRead(caller: Caller | undefined, realm: string): boolean {
  return caller !== undefined && findUncovered(caller.realms, [realm]) === undefined;
}

/** Realms a list is limited to; undefined: none is left out. */
export function readableRealms(caller: Caller | undefined): readonly string[] | undefined {
  if (caller === undefined) return [];
  return caller.realms.includes('*') ? undefined : caller.realms;
}
