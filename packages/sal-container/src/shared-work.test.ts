import { expect, test } from 'vitest';
import { SharedWork } from './shared-work.ts';

/** Work that ends when told, and knows whether it was aborted. */
function createWork() {
  const shared = new SharedWork<string>();
  const runs: {
    signal: AbortSignal;
    end: (value: string) => void;
    fail: (error: Error) => void;
  }[] = [];
  const start = (signal: AbortSignal) =>
    new Promise<string>((resolve, reject) => {
      runs.push({ signal, end: resolve, fail: reject });
      signal.addEventListener('abort', () => reject(signal.reason));
    });
  const join = (signal = new AbortController().signal) => shared.join('key', signal, start);
  return { runs, join };
}

test('two callers get the result of one run', async () => {
  const { runs, join } = createWork();
  const both = Promise.all([join(), join()]);
  expect(runs).toHaveLength(1);
  runs[0]?.end('done');
  expect(await both).toEqual(['done', 'done']);
});

test('begins anew once it has ended', async () => {
  const { runs, join } = createWork();
  const first = join();
  runs[0]?.end('first');
  await first;
  const second = join();
  runs[1]?.end('second');
  expect(await second).toBe('second');
});

test('a failure reaches everybody', async () => {
  const { runs, join } = createWork();
  const both = Promise.allSettled([join(), join()]);
  runs[0]?.fail(new Error('broken'));
  expect((await both).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
});

test('who leaves is gone at once, and the others get the result', async () => {
  const { runs, join } = createWork();
  const leaving = new AbortController();
  const left = join(leaving.signal);
  const stayed = join();
  leaving.abort(new Error('had enough'));
  await expect(left).rejects.toThrow('had enough');
  expect(runs[0]?.signal.aborted).toBe(false);
  runs[0]?.end('done');
  expect(await stayed).toBe('done');
});

test('the last to leave ends the work, and a later caller starts another', async () => {
  const { runs, join } = createWork();
  const leaving = new AbortController();
  const left = join(leaving.signal);
  leaving.abort(new Error('had enough'));
  const later = join();
  await expect(left).rejects.toThrow('had enough');
  expect(runs[0]?.signal.aborted).toBe(true);
  expect(runs).toHaveLength(2);
  runs[1]?.end('done');
  expect(await later).toBe('done');
});

/** A cancelled run aborts all its steps at once: two containers of one image wait for one pull. */
test('of those who leave in the same moment, the last ends the work and waits for it', async () => {
  const shared = new SharedWork<string>();
  const works: AbortSignal[] = [];
  const ended = Promise.withResolvers<string>();
  const start = async (signal: AbortSignal) => {
    works.push(signal);
    await ended.promise;
    signal.throwIfAborted();
    return 'done';
  };
  const run = new AbortController();
  const join = () => shared.join('key', AbortSignal.any([run.signal]), start);
  const first = join();
  let isOver = false;
  const last = join().finally(() => {
    isOver = true;
  });
  run.abort(new Error('cancelled'));
  await expect(first).rejects.toThrow('cancelled');
  expect(works.map(({ aborted }) => aborted)).toEqual([true]);
  expect(isOver).toBe(false);
  ended.resolve('too late');
  await expect(last).rejects.toThrow('cancelled');
});
