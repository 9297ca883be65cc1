/**
 * A private Redis: its own socket, its own folder, no TCP port. AOF on and `noeviction`, as BullMQ needs
 * (dependency notes §3); what it holds can be rebuilt from the journals at any time.
 */
import { createHash } from 'node:crypto';
import { accessSync, constants, mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HyphaError } from '@hypha/protocol';
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

export function redisProcess(options: {
  dataDir: string;
  socket: string;
  logFile: string;
}): ProcessSpec {
  mkdirSync(options.dataDir, { recursive: true, mode: 0o700 });
  return {
    name: 'redis',
    command: findRedisServer(),
    args: [
      ...['--port', '0', '--unixsocket', options.socket, '--unixsocketperm', '600'],
      ...['--dir', options.dataDir, '--appendonly', 'yes', '--maxmemory-policy', 'noeviction'],
      ...['--save', '', '--daemonize', 'no', '--enable-debug-command', 'no'],
    ],
    logFile: options.logFile,
    announces: false,
    probe: () => answersPing(options.socket),
  };
}

function answersPing(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    connection.setTimeout(500, () => connection.destroy());
    connection.once('connect', () => connection.write('PING\r\n'));
    connection.once('data', (data) => {
      resolve(data.toString().startsWith('+PONG'));
      connection.destroy();
    });
    connection.once('error', () => resolve(false));
    connection.once('close', () => resolve(false));
  });
}
