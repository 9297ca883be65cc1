import { expect, test } from 'vitest';
import { Doorbell } from './doorbell.ts';

test('a listener looks once before any ring, so nothing written before it is missed', async () => {
  const listening = new Doorbell().listen('a', new AbortController().signal);
  expect(await listening.next()).toBe(true);
});

test('a ring while the listener was busy is not lost', async () => {
  const bell = new Doorbell();
  const listening = bell.listen('a', new AbortController().signal);
  await listening.next();
  bell.ring('a');
  expect(await listening.next()).toBe(true);
});

test('a listener waits for its own topic only', async () => {
  const bell = new Doorbell();
  const listening = bell.listen('a', new AbortController().signal);
  await listening.next();
  let woke = false;
  const next = listening.next().then(() => {
    woke = true;
  });
  bell.ring('b');
  await Promise.resolve();
  expect(woke).toBe(false);
  bell.ring('a');
  await next;
  expect(woke).toBe(true);
});

test('abort wakes a waiting listener and ends it', async () => {
  const bell = new Doorbell();
  const end = new AbortController();
  const listening = bell.listen('a', end.signal);
  await listening.next();
  const next = listening.next();
  end.abort();
  expect(await next).toBe(false);
  expect(await listening.next()).toBe(false);
});

test('a listener that asked to be woken looks again without any ring', async () => {
  const listening = new Doorbell().listen('a', new AbortController().signal);
  await listening.next();
  expect(await listening.next(1)).toBe(true);
});
