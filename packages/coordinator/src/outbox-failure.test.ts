import { HyphaError, type OutboxItem } from '@hypha/protocol';
import { createLogger } from '@hypha/service';
import { expect, test } from 'vitest';
import { Outbox } from './outbox.ts';
import type { OutboxDeps } from './outbox-deps.ts';

const run = `run_${'a'.repeat(26)}`;
const item: OutboxItem = { type: 'accepted', messageId: run, run };

/** An outbox whose first read fails. */
function failingWith(error: Error): Outbox {
  const deps: Partial<OutboxDeps> = {
    runs: { find: () => Promise.reject(error) } as unknown as OutboxDeps['runs'],
    log: createLogger({ name: 'test', level: 'silent' }),
  };
  return new Outbox(deps as OutboxDeps);
}

test.for(['E_STORAGE', 'E_UNAVAILABLE', 'E_STALE_VIEW', 'E_INTERNAL'] as const)(
  'a failure of the coordinator itself (%s) leaves every item with its node',
  async (code) => {
    const outbox = failingWith(new HyphaError(code, 'no'));
    await expect(outbox.take('node', { items: [item] })).rejects.toMatchObject({ code });
  },
);

test('what is wrong with an item is said of that item', async () => {
  const outbox = failingWith(new HyphaError('E_FORBIDDEN', 'no'));
  expect(await outbox.take('node', { items: [item] })).toEqual([
    { status: 'refused', problem: expect.objectContaining({ code: 'E_FORBIDDEN' }) },
  ]);
});
