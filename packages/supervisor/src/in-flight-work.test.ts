import { expect, test } from 'vitest';
import { InFlightWork } from './in-flight-work.ts';

test('interrupted work has ended when the interrupter goes on, and other work has not', async () => {
  const work = new InFlightWork<string>();
  const { signal } = new AbortController();
  const ended: string[] = [];
  const untilAborted = (name: string) => async (stop: AbortSignal) => {
    await new Promise<void>((resolve) => stop.addEventListener('abort', () => resolve()));
    await new Promise((resolve) => setImmediate(resolve));
    ended.push(name);
  };
  const first = work.run('first', signal, untilAborted('first'));
  void work.run('second', signal, untilAborted('second'));
  await work.interrupt((name) => name === 'first', new Error('a run wants it'));
  expect(ended).toEqual(['first']);
  await first;
});
