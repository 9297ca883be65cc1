import { stat } from 'node:fs/promises';
import { contractRef } from '@hypha/sal/contract';
import { describe, expect, test, vi } from 'vitest';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { failureOf } from './testing/failure.ts';
import { nodeOfEachTest } from './testing/node-of-each-test.ts';
import { PAGE, type ScratchNode } from './testing/scratch-node.ts';
import { NO_TRACES } from './testing/traces.ts';

let node: ScratchNode;
nodeOfEachTest((made) => {
  node = made;
});

describe('health', () => {
  test('that does not come is E_HEALTH with the last verdict and the end of the log', async () => {
    const command = ['/bin/sh', '-c', 'echo started; echo waiting >&2; sleep 1000'];
    const args = { command, health: { http: { port: 81 }, within: '600ms' } };
    const error = await failureOf(node.ensure('web', args));
    expect(error).toMatchObject({ code: 'E_HEALTH', hint: 'hypha logs web' });
    expect(error.message).toMatch(/ECONNREFUSED/);
    expect(error.details).toMatchObject({ log: ['started', 'waiting'] });
  });

  test('of a container that ends fails at once', async () => {
    const command = ['/bin/sh', '-c', 'echo giving up; exit 9'];
    const args = { command, health: { tcp: { port: 80 }, within: '60s' } };
    const started = performance.now();
    const error = await failureOf(node.ensure('web', args));
    expect(performance.now() - started).toBeLessThan(30_000);
    expect(error.message).toMatch(/exited with 9/);
    expect(error.details).toMatchObject({ log: ['giving up'] });
  });

  test.each([
    ['http', { http: { port: 80, path: '/page' } }],
    ['tcp', { tcp: { port: 80 } }],
    ['exec', { exec: ['/bin/cat', '/www/page'] }],
    ['all of them', { http: { port: 80, path: '/page' }, tcp: { port: 80 }, exec: ['/bin/true'] }],
  ])('by %s', async (_title, health) => {
    await node.ensure('web', { ...PAGE, health });
  });

  test.each([
    ['http', { http: { port: 80, path: '/absent' } }, /HTTP 404/],
    ['tcp', { tcp: { port: 81 } }, /no connection to port 81/],
    ['exec', { exec: ['/bin/false'] }, /exited with 1/],
    ['one of several', { tcp: { port: 80 }, exec: ['/bin/false'] }, /exited with 1/],
  ])('not by %s', async (_title, health, message) => {
    const error = await failureOf(
      node.ensure('web', { ...PAGE, health: { ...health, within: '1s' } }),
    );
    expect(error).toMatchObject({ code: 'E_HEALTH' });
    expect(error.message).toMatch(message);
  });

  test('is seen by whoever observes', async () => {
    await node.ensure('web', PAGE);
    expect((await node.observe('web', PAGE)).info.health).toBe('healthy');
    const wrong = { ...PAGE, health: { http: { port: 80, path: '/absent' } } };
    await node.converge('web', wrong);
    await vi.waitFor(async () => {
      expect((await node.observe('web', wrong)).info.health).toBe('HTTP 404 from port 80');
    });
  });
});

describe('what cannot run', () => {
  test('a command that the image does not have', async () => {
    const error = await failureOf(node.ensure('web', { command: ['/bin/nothing-like-it'] }));
    expect(error).toMatchObject({ code: 'E_ARGUMENT', where: { path: 'command' } });
  });

  test('a volume that is not there', async () => {
    const args = { ...PAGE, mounts: { '/mnt': contractRef('volume', 'absent') } };
    const error = await failureOf(node.ensure('web', args));
    expect(error).toMatchObject({ code: 'E_REFERENCE', where: { path: 'mounts./mnt' } });
    expect(await node.capture()).toEqual(NO_TRACES);
  });
});

describe('logs', () => {
  test('are bounded, within one run and over many restarts', async () => {
    const script = 'seq 1 200000; exit 1';
    const args = { command: ['/bin/sh', '-c', script] };
    await node.ensure('web', args);
    await vi.waitFor(
      async () => expect((await node.observe('web', args)).state).toBe('backing-off'),
      {
        timeout: 20_000,
      },
    );
    const { store } = await node.containers();
    const path = store.logPath(await node.current('web'));
    expect((await stat(path)).size).toBeLessThanOrEqual(CONTAINER_LIMITS.logBytesMax);
    expect((await node.logs('web', args)).at(-1)).toBe('200000');
    for (const round of [1, 2, 3]) {
      node.laterMs = round * CONTAINER_LIMITS.restartMsMax;
      await node.converge('web', args);
      await vi.waitFor(
        async () => expect((await node.observe('web', args)).state).not.toBe('running'),
        {
          timeout: 20_000,
        },
      );
    }
    expect((await stat(path)).size).toBeLessThanOrEqual(2 * CONTAINER_LIMITS.logBytesMax);
    expect((await node.logs('web', args)).at(-1)).toBe('200000');
  });

  test('are followed live', async () => {
    const args = {
      command: ['/bin/sh', '-c', 'for i in 1 2 3; do echo $i; sleep 0.1; done; sleep 1000'],
    };
    await node.ensure('web', args);
    const sal = await node.sal();
    const record = await node.record('web', args);
    const stop = new AbortController();
    const options = { follow: true, tail: null, signal: stop.signal };
    const seen: string[] = [];
    for await (const line of sal.resource.logs?.(record, options) ?? []) {
      seen.push(line);
      if (seen.length === 3) stop.abort();
    }
    expect(seen).toEqual(['1', '2', '3']);
  });
});
