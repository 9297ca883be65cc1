/**
 * A private Redis: its own socket, folder and users, no TCP port. AOF on and `noeviction`, as BullMQ needs
 * (dependency notes §3); what it holds can be rebuilt from the journals at any time.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { HyphaError } from '@hypha/protocol';
import { childEnvironment } from '../config.ts';
import type { ProcessSpec } from './process-manager.ts';

/** `sun_path` holds 107 bytes and a terminator (unix(7)). */
const SOCKET_PATH_BYTES_MAX = 107;

/** A folder whose socket paths fit, below the state where that is short enough. */
export function socketDir(stateDir: string): string {
  const below = join(stateDir, 'run');
  const longest = join(below, 'supervisor-00.sock');
  if (Buffer.byteLength(longest) <= SOCKET_PATH_BYTES_MAX) return below;
  const hash = createHash('sha256').update(stateDir).digest('hex').slice(0, 12);
  return join(tmpdir(), `hypha-${hash}`);
}

const CANDIDATES = [
  '/usr/bin/redis-server',
  '/usr/local/bin/redis-server',
  '/opt/homebrew/bin/redis-server',
  '/usr/bin/valkey-server',
];

export function findRedisServer(): string {
  const found = CANDIDATES.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (found === undefined) {
    throw new HyphaError('E_UNAVAILABLE', 'no redis-server on this machine', {
      hint: 'on Debian: apt-get install -y redis-server',
    });
  }
  return found;
}

const ACL_MS_MAX = 30_000;

/** File of a node's Redis users in its state folder. The name is the supervisor's. */
export const REDIS_USERS_FILE = 'redis-users.json';

/**
 * Writes the users of the given nodes, then says how to start the Redis that knows them.
 * @param options.nodes state folders
 */
export async function redisProcess(options: {
  nodes: readonly string[];
  dataDir: string;
  socket: string;
  logFile: string;
  signal: AbortSignal;
}): Promise<ProcessSpec> {
  const command = findRedisServer();
  mkdirSync(options.dataDir, { recursive: true, mode: 0o700 });
  const aclFile = join(options.dataDir, 'users.acl');
  await writeUsers(options.nodes, aclFile, options.signal);
  return {
    name: 'redis',
    command,
    args: [
      ...['--port', '0', '--unixsocket', options.socket, '--unixsocketperm', '600'],
      ...['--dir', options.dataDir, '--appendonly', 'yes', '--save', '', '--daemonize', 'no'],
      ...['--aclfile', aclFile, '--enable-debug-command', 'no', '--enable-module-command', 'no'],
      // Evicting would delete jobs; refusing only delays them.
      ...['--maxmemory', '256mb', '--maxmemory-policy', 'noeviction'],
      // After this, others hear BUSY instead of waiting for a script without end.
      ...['--busy-reply-threshold', '1000'],
    ],
    logFile: options.logFile,
    announces: false,
    probe: () => answersPing(options.socket),
  };
}

/** The supervisor's room knows who may do what; a process, because nothing here may import it. */
async function writeUsers(
  nodes: readonly string[],
  aclFile: string,
  signal: AbortSignal,
): Promise<void> {
  const program = fileURLToPath(import.meta.resolve('@hypha/supervisor/redis-acl'));
  const flags = ['--states', JSON.stringify(nodes), '--acl-file', aclFile, '--log-level', 'warn'];
  try {
    await promisify(execFile)(process.execPath, [program, ...flags], {
      env: childEnvironment(),
      timeout: ACL_MS_MAX,
      signal,
    });
  } catch (cause) {
    signal.throwIfAborted();
    const { stderr = '' } = cause as { stderr?: string };
    throw new HyphaError('E_UNAVAILABLE', `cannot write the Redis users ${aclFile}`, {
      cause,
      ...(stderr === '' ? {} : { details: [stderr.trimEnd().slice(-2000)] }),
    });
  }
}

/** It is up when it answers; without a name the answer is NOAUTH. */
function answersPing(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    connection.setTimeout(500, () => connection.destroy());
    connection.once('connect', () => connection.write('PING\r\n'));
    connection.once('data', (data) => {
      resolve(/^(?:\+PONG|-NOAUTH)/.test(data.toString()));
      connection.destroy();
    });
    connection.once('error', () => resolve(false));
    connection.once('close', () => resolve(false));
  });
}
