import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { nodeIdOf, type Signer } from '@hypha/protocol';
import { nodeVerifier, readKeyFile } from '@hypha/protocol/node';
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
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  }
  return layout;
}

/** A node's own key, which it makes at its first start. The file is `identity`'s. */
export function nodeKeyIn(state: StateLayout, name: string): Signer {
  return readKeyFile(join(state.node(name), 'identity', 'identity.pem'));
}

export function nodeIdIn(state: StateLayout, name: string): string {
  return nodeIdOf(nodeVerifier, nodeKeyIn(state, name).publicKey);
}

/** Whether a node has joined already: then it needs no token. The file is `identity`'s. */
export function isEnrolled(state: StateLayout, name: string): boolean {
  return existsSync(join(state.node(name), 'identity', 'membership.json'));
}
