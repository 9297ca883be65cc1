/**
 * Somebody who may write anything to the node's Redis (design §10: the queue decides nothing). Whatever is done to
 * the jobs, each run ends once with its own result, what was forged has no effect, and all goes on.
 */
import { isRedisInstalled, waitFor } from '@hypha/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AttackedNode } from './fixtures/attacked-node.ts';

const STATE_MS_MAX = 20_000;
const SUCCEEDED = { state: 'succeeded', steps: 1 };
const FOREIGN_RUN = `run_${'q'.repeat(26)}`;

/** Takes long enough for Redis to be wiped while it works. */
const LONG = `import { volume } from 'hypha';
export default async function deploy() {
  for (let i = 0; i < 40; i++) await volume('data-' + i, { size: '16MiB' });
}
`;

let node: AttackedNode;
let prefix: string;
let turn = 0;

describe.skipIf(!(await isRedisInstalled()))('a writer to Redis (needs redis-server)', () => {
  beforeAll(async () => {
    node = await AttackedNode.start();
    expect(await node.doesGoodWork()).toBe(true);
    const [meta] = await keys('*:runs:meta');
    prefix = meta?.slice(0, -'meta'.length) ?? '';
  });
  afterAll(async () => node?.[Symbol.asyncDispose]());

  const redis = (command: string, ...args: string[]) => node.redis.call(command, ...args);
  const keys = async (pattern: string) => (await redis('KEYS', pattern)) as string[];

  /** Attacks the job of a run while it waits, for the only runner stands still. Answers the run. */
  async function attackWaiting(
    attack: (run: string, job: string) => Promise<void>,
  ): Promise<string> {
    const runner = node.runnerPid();
    process.kill(runner, 'SIGSTOP');
    try {
      const { runs } = await node.api.submit({
        envelope: node.sign({ deployment: `victim-${++turn}` }),
      });
      const run = runs[0]?.run ?? '';
      const job = `${run}-1`;
      await waitFor(async () => (await waiting()).includes(job), {
        timeoutMs: STATE_MS_MAX,
        what: 'its job to wait',
      });
      await attack(run, job);
      return run;
    } finally {
      process.kill(runner, 'SIGCONT');
    }
  }

  const waiting = async () => (await redis('LRANGE', `${prefix}wait`, '0', '-1')) as string[];

  /** It ran once, from its beginning to its end, and made its volume. */
  async function expectRanOnce(run: string): Promise<void> {
    expect(await node.ended(run)).toMatchObject(SUCCEEDED);
    const types = (await node.journal(run)).map(({ body }) => body.type);
    expect(types).toEqual([
      ...['accepted', 'started', 'step-intent', 'step-result', 'committed', 'finished'],
    ]);
  }

  const inject = (job: string, data: string, push: 'LPUSH' | 'RPUSH' = 'RPUSH') =>
    redis(
      'HSET',
      `${prefix}${job}`,
      'name',
      'run',
      'data',
      data,
      'opts',
      '{}',
      'timestamp',
      '1',
    ).then(() => redis(push, `${prefix}wait`, job));
  const wake = () => redis('ZADD', `${prefix}marker`, '0', '0');

  test.for([
    ['another run', JSON.stringify({ run: FOREIGN_RUN, epoch: 1 })],
    ['another epoch', (run: string) => JSON.stringify({ run, epoch: 7 })],
    [
      'a script of its own',
      JSON.stringify({ run: FOREIGN_RUN, epoch: 1, source: 'export default 1' }),
    ],
    ['something that is no job', '"x"'],
    ['something that is not JSON', '{"run":'],
  ] as const)('makes a waiting job one for %s', async ([, data]) => {
    const run = await attackWaiting(async (victim, job) => {
      const text = typeof data === 'string' ? data : data(victim);
      await redis('HSET', `${prefix}${job}`, 'data', text);
    });
    await expectRanOnce(run);
    expect(await node.doesGoodWork()).toBe(true);
  });

  test('injects a job for a run that nobody signed', async () => {
    const before = await node.effects();
    const alarms = node.alarms().length;
    await inject(`${FOREIGN_RUN}-1`, JSON.stringify({ run: FOREIGN_RUN, epoch: 1 }));
    await wake();
    await waitFor(() => node.alarms().length > alarms, {
      timeoutMs: STATE_MS_MAX,
      what: 'an alarm about the forged job',
    });
    expect(await node.effects()).toEqual(before);
    expect(await node.doesGoodWork()).toBe(true);
  });

  test('queues a finished run again', async () => {
    const { run } = await node.finish(node.sign({ deployment: 'finished' }));
    const before = await node.effects();
    const alarms = node.alarms().length;
    await inject(`${run}-1`, JSON.stringify({ run, epoch: 1 }));
    await inject(`${run}-2`, JSON.stringify({ run, epoch: 2 }));
    // An id whose job is gone.
    await redis('RPUSH', `${prefix}wait`, `${run}-3`);
    await wake();
    await waitFor(() => node.alarms().length >= alarms + 2, {
      timeoutMs: STATE_MS_MAX,
      what: 'alarms about the forged jobs',
    });
    expect(await node.doesGoodWork()).toBe(true);
    expect((await node.effects()).filter((effect) => before.includes(effect))).toEqual(before);
    await expectRanOnce(run);
  });

  test('forges that a waiting job has completed', async () => {
    const run = await attackWaiting(async (_, job) => {
      await redis('LREM', `${prefix}wait`, '0', job);
      await redis('HSET', `${prefix}${job}`, 'returnvalue', '"forged"', 'finishedOn', '1');
      await redis('ZADD', `${prefix}completed`, '1', job);
    });
    await expectRanOnce(run);
    expect((await node.api.output(run)).output).toBe('made');
    expect(await node.doesGoodWork()).toBe(true);
  });

  test('takes the id of a job, so that it cannot be added', async () => {
    const run = await attackWaiting(async (_, job) => {
      await redis('FLUSHALL');
      await redis('HSET', `${prefix}${job}`, 'name', 'run', 'data', '{}', 'opts', '{}');
    });
    await expectRanOnce(run);
    expect(await node.doesGoodWork()).toBe(true);
  });

  test('wipes everything while a run waits', async () => {
    await expectRanOnce(await attackWaiting(async () => void (await redis('FLUSHALL'))));
    expect(await node.doesGoodWork()).toBe(true);
  });

  test('wipes everything while a run works', async () => {
    const envelope = node.sign({ deployment: 'long', source: LONG });
    const { runs } = await node.api.submit({ envelope });
    const run = runs[0]?.run ?? '';
    await waitFor(async () => (await node.api.run(run)).steps > 0, {
      timeoutMs: STATE_MS_MAX,
      what: 'it to work',
    });
    await redis('FLUSHALL');
    expect(await node.ended(run)).toMatchObject({ state: 'succeeded', steps: 40 });
    const started = (await node.journal(run)).filter(({ body }) => body.type === 'started');
    expect(started).toHaveLength(1);
    expect(await node.doesGoodWork()).toBe(true);
  });

  test('pauses the queue', async () => {
    const run = await attackWaiting(async (_, job) => {
      await redis('HSET', `${prefix}meta`, 'paused', '1');
      await redis('LREM', `${prefix}wait`, '0', job);
      await redis('RPUSH', `${prefix}paused`, job);
    });
    await expectRanOnce(run);
    expect(await node.doesGoodWork()).toBe(true);
  });

  test('turns what the queue is made of into something else', async () => {
    const run = await attackWaiting(async (_, job) => {
      for (const name of ['wait', 'active', 'marker', 'events', 'meta', job]) {
        await redis('DEL', `${prefix}${name}`);
        await redis('SET', `${prefix}${name}`, 'nonsense');
      }
    });
    await expectRanOnce(run);
    expect(node.alarms().map(({ msg }) => msg)).toContain('queue hands out nothing and is emptied');
    expect(await node.doesGoodWork()).toBe(true);
  });
});
