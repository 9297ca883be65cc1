/** The users on a real Redis: each does its whole job, and nothing else. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createLogger } from '@hypha/service';
import { openTempDir, type TempDir, waitFor } from '@hypha/testkit';
import { Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { createRedisUsers, type RedisUser, redisAcl } from './redis-users.ts';
import { QUEUE_NAME, queuePrefix, RunQueue } from './run-queue.ts';

const SERVER = '/usr/bin/redis-server';
const NODE = `node_${'a'.repeat(32)}`;
const OTHER = `node_${'b'.repeat(32)}`;
/** By the ACL, or before it is asked: `MODULE` and `DEBUG` are off. */
const REFUSED = /NOPERM|executing the script can't|command not allowed/;
const log = createLogger({ name: 'test', level: 'silent' });
const users = createRedisUsers(NODE, (count) => randomBytes(count));
const others = createRedisUsers(OTHER, (count) => randomBytes(count));
/** Somebody who may look at everything. */
const admin: RedisUser = { name: 'admin', password: 'a'.repeat(32) };
const acl = redisAcl([
  { node: NODE, users },
  { node: OTHER, users: others },
]);

test('the ACL file names every user and holds no password', () => {
  const all = [users, others].flatMap(({ supervisor, runner }) => [supervisor, runner]);
  expect(new Set(all.map(({ password }) => password)).size).toBe(4);
  for (const { name, password } of all) {
    expect(acl).toContain(`user ${name} on #`);
    expect(acl).not.toContain(password);
  }
});

describe.skipIf(!existsSync(SERVER))('on a real Redis (needs redis-server)', () => {
  let folder: TempDir;
  let server: ChildProcess;

  beforeAll(async () => {
    folder = await openTempDir();
    const aclFile = join(folder.path, 'redis.acl');
    await writeFile(aclFile, `${acl}user ${admin.name} on >${admin.password} ~* &* +@all\n`);
    const argv = ['--port', '0', '--unixsocket', socket(), '--dir', folder.path, '--save', ''];
    server = spawn(SERVER, [...argv, '--aclfile', aclFile], { stdio: 'ignore' });
    await waitFor(() => existsSync(socket()), { what: 'Redis to listen' });
  });
  afterAll(async () => {
    const ended = once(server, 'exit');
    server.kill('SIGKILL');
    await ended;
    await folder[Symbol.asyncDispose]();
  });

  const socket = () => join(folder.path, 'redis.sock');
  const connect = (user: RedisUser) => {
    const redis = new Redis({
      path: socket(),
      username: user.name,
      password: user.password,
      maxRetriesPerRequest: null,
    });
    // What fails fails its command.
    redis.on('error', () => undefined);
    onTestFinished(() => redis.disconnect());
    return redis;
  };
  const refusals = () => connect(admin).call('ACL', 'LOG');
  const openQueue = () => {
    const queue = new RunQueue({ redis: socket(), user: users.supervisor, node: NODE, log });
    onTestFinished(() => queue.close());
    return queue;
  };
  const openWorker = (work: (run: string) => Promise<void>) => {
    const connection = connect(users.runner);
    const timing = { lockDuration: 300, lockRenewTime: 100, stalledInterval: 200 };
    const worker = new Worker(QUEUE_NAME, async (job) => work(job.data.run), {
      ...{ connection, prefix: queuePrefix(NODE), name: 'runner', ...timing },
      ...{ maxStalledCount: 1, removeOnComplete: { count: 0 }, removeOnFail: { count: 0 } },
    });
    worker.on('error', () => undefined);
    onTestFinished(async () => {
      await worker.close(true).catch(() => undefined);
      await worker.disconnect().catch(() => undefined);
    });
    return { worker, connection };
  };
  const keysLeft = async () => connect(admin).keys(`${queuePrefix(NODE)}:*:run_*`);

  test('a supervisor adds, twice over; a runner works, fails and loses a job to another', async () => {
    await connect(admin).call('ACL', 'LOG', 'RESET');
    const queue = openQueue();
    await waitFor(() => queue.isUp, { what: 'the queue to connect' });
    const jobs = ['run_a', 'run_b', 'run_c'].map((run) => ({ run, epoch: 1 }));
    expect(await queue.add(jobs)).toBe(true);
    expect(await queue.add(jobs)).toBe(true);
    const done: string[] = [];
    const stuck = openWorker(async (run) => {
      if (run === 'run_b') throw new Error('this one fails');
      if (run === 'run_c') await new Promise(() => undefined);
      done.push(run);
    });
    const isStuck = async () =>
      (await connect(admin).llen(`${queuePrefix(NODE)}:runs:active`)) === 1;
    await waitFor(async () => done.includes('run_a') && (await isStuck()), { what: 'a stuck job' });
    // As when its process is killed: nobody renews the lock.
    stuck.connection.disconnect();
    await stuck.worker.disconnect();
    openWorker(async (run) => {
      done.push(run);
    });
    await waitFor(async () => done.includes('run_c'), { what: 'the job to be taken over' });
    await waitFor(async () => (await keysLeft()).length === 0, { what: 'an empty queue' });
    expect(done).toEqual(['run_a', 'run_c']);
    expect(await refusals()).toEqual([]);
  });

  test('a supervisor empties a queue that somebody made unusable', async () => {
    await connect(admin).call('ACL', 'LOG', 'RESET');
    const queue = openQueue();
    await waitFor(() => queue.isUp, { what: 'the queue to connect' });
    const job = { run: 'run_d', epoch: 1 };
    await connect(admin).set(`${queuePrefix(NODE)}:runs:wait`, 'nonsense');
    await connect(admin).hset(`${queuePrefix(NODE)}:runs:run_d-1`, 'data', '{');
    await connect(admin).hset(`${queuePrefix(NODE)}:runs:meta`, 'paused', '1');
    expect(await queue.add([{ run: 'run_e', epoch: 1 }])).toBe(false);
    await queue.reset([job]);
    expect(await queue.add([job])).toBe(true);
    const done = Promise.withResolvers<string>();
    openWorker(async (run) => done.resolve(run));
    expect(await done.promise).toBe('run_d');
    expect(await refusals()).toEqual([]);
  });

  const KEY = `${queuePrefix(NODE)}:runs:wait`;
  const FOREIGN = `${queuePrefix(OTHER)}:runs:wait`;
  const NEVER: readonly (readonly [string, ...string[]])[] = [
    ['CONFIG', 'GET', '*'],
    ['CONFIG', 'SET', 'dir', '/etc'],
    ['KEYS', '*'],
    ['SCAN', '0'],
    ['FLUSHALL'],
    ['FLUSHDB'],
    ['MODULE', 'LIST'],
    ['MODULE', 'LOAD', '/x.so'],
    ['DEBUG', 'SLEEP', '0'],
    ['ACL', 'LIST'],
    ['CLIENT', 'LIST'],
    ['CLIENT', 'KILL', 'ID', '1'],
    ['SCRIPT', 'FLUSH'],
    ['FUNCTION', 'LIST'],
    ['SAVE'],
    ['SHUTDOWN', 'NOSAVE'],
    ['REPLICAOF', 'NO', 'ONE'],
    ['SLAVEOF', 'NO', 'ONE'],
    ['SWAPDB', '0', '1'],
    ['MIGRATE', '127.0.0.1', '1', KEY, '0', '1'],
    ['RESTORE', KEY, '0', ''],
    ['SUBSCRIBE', 'any'],
    ['PUBLISH', 'any', 'x'],
    ['EVAL', 'return 1', '1', FOREIGN],
    ['EVAL', `return redis.call('LPUSH', '${FOREIGN}', 'x')`, '0'],
    ['EVAL', `return redis.call('LPUSH', 'plain', 'x')`, '0'],
    ['EVAL', `return redis.call('KEYS', '*')`, '0'],
    ['HGET', `${queuePrefix(OTHER)}:runs:meta`, 'opts.maxLenEvents'],
    ['XADD', `${queuePrefix(OTHER)}:runs:events`, '*', 'a', 'b'],
    ['ZADD', 'plain', '1', 'a'],
    // Of one node's prefix, but not below it.
    ['LPUSH', queuePrefix(NODE), 'x'],
  ];

  test.for([
    [
      'supervisor',
      users.supervisor,
      [
        ['LPOP', KEY],
        ['HGETALL', KEY],
        ['BZPOPMIN', KEY, '1'],
        ['DEL', FOREIGN],
      ],
    ],
    [
      'runner',
      users.runner,
      [
        ['LPOP', KEY],
        ['RENAME', KEY, `${KEY}-2`],
      ],
    ],
  ] as const)('a %s does nothing else, and nothing to another node', async ([, user, also]) => {
    const redis = connect(user);
    for (const [command, ...args] of [...NEVER, ...also]) {
      const answer = await redis.call(command, ...args).catch((error: Error) => error);
      const what = `${command} ${args.join(' ')}`;
      expect(answer, what).toBeInstanceOf(Error);
      expect((answer as Error).message, what).toMatch(REFUSED);
    }
  });

  test('who has no name may do nothing', async () => {
    const redis = new Redis({ path: socket(), maxRetriesPerRequest: 0 });
    redis.on('error', () => undefined);
    onTestFinished(() => redis.disconnect());
    await expect(redis.ping()).rejects.toThrow('NOAUTH');
    for (const password of ['', users.runner.password]) {
      const stranger = connect({ ...users.supervisor, password });
      await expect(stranger.ping()).rejects.toThrow(/NOAUTH|WRONGPASS/);
    }
  });
});
