import { existsSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type NodeId, nodeIdOf, Sha256Hex, type Signer } from '@hypha/protocol';
import { generateKey, nodeVerifier, readKeyFile, writeKeyFile } from '@hypha/protocol/node';
import { z } from 'zod';
import { makeFolder } from './make-folder.ts';
import { socketDir } from './up/redis-process.ts';

/** Where `hypha up` and `hypha node join` keep what, below one state folder. */
export interface StateLayout {
  readonly root: string;
  readonly keys: string;
  readonly logs: string;
  readonly sockets: string;
  readonly ledger: string;
  readonly coordinator: string;
  readonly redis: string;
  readonly genesis: string;
  readonly pidRecord: string;
  node(name: string): string;
}

/** Makes the folders, readable by their owner alone. Idempotent. */
export function openState(root: string): StateLayout {
  const layout: StateLayout = {
    root,
    keys: join(root, 'keys'),
    logs: join(root, 'log'),
    sockets: socketDir(root),
    ledger: join(root, 'ledger'),
    coordinator: join(root, 'coordinator'),
    redis: join(root, 'redis'),
    genesis: join(root, 'genesis.json'),
    pidRecord: join(root, 'processes.json'),
    node: (name) => join(root, 'nodes', name),
  };
  for (const folder of [root, layout.keys, layout.logs, layout.sockets]) {
    makeFolder(folder);
  }
  return layout;
}

/** A node's own key, which it makes at its first start. The file is `identity`'s. */
export function nodeKeyIn(state: StateLayout, name: string): Signer {
  return readKeyFile(join(identityFolder(state, name), 'identity.pem'));
}

export function nodeIdIn(state: StateLayout, name: string): string {
  return nodeIdOf(nodeVerifier, nodeKeyIn(state, name).publicKey);
}

/** Whether a node has joined already: then it needs no token. The file is `identity`'s. */
export function isEnrolled(state: StateLayout, name: string): boolean {
  return existsSync(join(identityFolder(state, name), 'membership.json'));
}

/** What a node that has joined knows of its place, as far as the CLI needs it. The file is `identity`'s. */
const JoinedPlace = z.object({
  genesis: Sha256Hex,
  ledger: z.url(),
  coordinator: z.url(),
});

export interface JoinedNode extends z.infer<typeof JoinedPlace> {
  /** Of its folder. */
  readonly name: string;
}

/** Nodes that have joined with this state. */
export function findJoined(state: StateLayout): JoinedNode[] {
  const folder = dirname(state.node('any'));
  const names = existsSync(folder) ? readdirSync(folder).sort() : [];
  return names
    .filter((name) => isEnrolled(state, name))
    .map((name) => {
      const text = readFileSync(join(identityFolder(state, name), 'membership.json'), 'utf8');
      return { name, ...JoinedPlace.parse(JSON.parse(text)) };
    });
}

/**
 * Puts a new key beside a node's own: the node takes it at a start at which nothing is left to do for the
 * old one. Again: the one that waits. The names of the files are `identity`'s.
 */
export function ensureNextKey(state: StateLayout, name: string): NodeId {
  const file = join(identityFolder(state, name), 'identity.next.pem');
  if (!existsSync(file)) {
    // Written beside and renamed: a crash leaves no half key behind.
    const temporary = `${file}.${process.pid}.tmp`;
    writeKeyFile(temporary, generateKey().pem);
    renameSync(temporary, file);
  }
  return nodeIdOf(nodeVerifier, readKeyFile(file).publicKey);
}

function identityFolder(state: StateLayout, name: string): string {
  return join(state.node(name), 'identity');
}
