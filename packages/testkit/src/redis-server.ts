import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { findPortBase } from './free-ports.ts';
import { openTempDir } from './temp-dir.ts';
import { waitFor } from './wait-for.ts';

const SERVER = '/usr/bin/redis-server';
const READY_MS_MAX = 10_000;
const STOP_MS_MAX = 10_000;

/** A private Redis with its own folder: what it kept is there again after `start`. */
export interface RedisServer extends AsyncDisposable {
  readonly socket: string;
  readonly port: number;
  readonly url: string;
  readonly pid: number;
  /** As an init system would: what was acknowledged is on disk. */
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  start(): Promise<void>;
  /** One command over the socket. */
  call(command: string, ...args: string[]): Promise<unknown>;
}

export async function isRedisInstalled(): Promise<boolean> {
  return access(SERVER).then(
    () => true,
    () => false,
  );
}

/** @param options.appendfsync what it survives: with `everysec` a power cut loses a second */
export async function startRedis(
  options: { readonly appendfsync?: 'always' | 'everysec' } = {},
): Promise<RedisServer> {
  const { appendfsync = 'always' } = options;
  const folder = await openTempDir('redis');
  const port = await findPortBase(1);
  const socket = join(folder.path, 'redis.sock');
  const argv = [
    ...['--port', `${port}`, '--bind', '127.0.0.1', '--unixsocket', socket],
    ...['--dir', folder.path, '--appendonly', 'yes', '--appendfsync', appendfsync, '--save', ''],
    ...['--maxmemory-policy', 'noeviction', '--daemonize', 'no', '--logfile', 'redis.log'],
  ];
  let child: ChildProcess | undefined;

  const end = async (signal: 'SIGTERM' | 'SIGKILL') => {
    const running = child;
    child = undefined;
    if (running === undefined || running.exitCode !== null) return;
    const ended = once(running, 'exit', { signal: AbortSignal.timeout(STOP_MS_MAX) });
    running.kill(signal);
    await ended;
  };
  const server: RedisServer = {
    socket,
    port,
    url: `redis://127.0.0.1:${port}`,
    get pid() {
      return child?.pid ?? 0;
    },
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    start: async () => {
      if (child !== undefined) throw new Error('this Redis runs already');
      child = spawn(SERVER, argv, { stdio: 'ignore', cwd: folder.path });
      await waitFor(async () => (await server.call('PING')) === 'PONG', {
        timeoutMs: READY_MS_MAX,
        what: 'Redis to answer',
      });
    },
    call: async (command, ...args) => {
      const redis = new Redis({ path: socket, lazyConnect: true, retryStrategy: () => null });
      redis.on('error', () => undefined); // told by the rejected command
      try {
        await redis.connect();
        return await redis.call(command, ...args);
      } finally {
        redis.disconnect();
      }
    },
    [Symbol.asyncDispose]: async () => {
      await end('SIGKILL');
      await folder[Symbol.asyncDispose]();
    },
  };
  try {
    await server.start();
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
  return server;
}
