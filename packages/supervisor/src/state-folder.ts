import { createHash } from 'node:crypto';
import { chmod, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** Bytes of a unix socket's path, the terminator not counted (unix(7)). */
const SOCKET_PATH_BYTES_MAX = 107;

/** Where a node keeps what, below its state folder. */
export interface StateFolder {
  readonly root: string;
  /** Keys, membership, authority. */
  readonly identity: string;
  readonly reports: string;
  readonly journal: string;
  /** One file for each runner process. */
  readonly runners: string;
  /** Names and passwords of this node's Redis users. */
  readonly redisUsers: string;
  /** On which runners reach this process. */
  readonly socket: string;
  /** What the SALs keep. */
  readonly sals: string;
  /** Below it no disk: values of secrets while containers use them. */
  readonly secrets: string;
  /** Name of this node's folder in the cgroup hierarchy: two nodes on a machine never meet. */
  readonly fenceGroup: string;
}

/** Makes the folders, for their owner alone. Idempotent. */
export async function openStateFolder(path: string): Promise<StateFolder> {
  const root = resolve(path);
  const hash = createHash('sha256').update(root).digest('hex');
  const inside = join(root, 'supervisor.sock');
  const isShort = Buffer.byteLength(inside) <= SOCKET_PATH_BYTES_MAX;
  const socketFolder = isShort ? root : join(tmpdir(), `hypha-node-${hash.slice(0, 16)}`);
  for (const folder of [root, socketFolder]) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    // Fails when somebody else made it: then nobody may be let in there.
    await chmod(folder, 0o700);
  }
  const fenceGroup = `hypha-${hash.slice(0, 8)}`;
  return {
    root,
    identity: join(root, 'identity'),
    reports: join(root, 'reports'),
    journal: join(root, 'journal.db'),
    runners: join(root, 'runners'),
    redisUsers: join(root, 'redis-users.json'),
    socket: join(socketFolder, 'supervisor.sock'),
    sals: join(root, 'sals'),
    secrets: join('/run', fenceGroup, 'secrets'),
    fenceGroup,
  };
}
