import { afterAll, beforeAll, expect, test } from 'vitest';
import { NodeFixture, until } from './testing/node-fixture.ts';

let fixture: NodeFixture;
beforeAll(async () => {
  fixture = await NodeFixture.start();
});
afterAll(async () => {
  await fixture[Symbol.asyncDispose]();
});

test('a signed script makes its resources and ends in a receipt everybody has', async () => {
  const envelope = fixture.sign(`
    const data = await volume('data', { size: 5 });
    await container('web', { size: 7 });
    log('made', { name: data.name });
    return { name: data.name };`);
  const run = await fixture.submit(envelope);
  const view = await fixture.waitForEnd(run);
  expect(view).toMatchObject({ state: 'succeeded', steps: 2, simulated: true, problem: null });
  expect(fixture.sals.things()).toEqual(['data', 'web']);
  expect(fixture.sals.effects()).toEqual(['make data', 'make web']);
  expect(await fixture.api.output(run)).toMatchObject({ output: { name: 'data' } });
  const receipt = await fixture.api.receipt(run);
  await until('ledger and coordinator have the receipt', async () => {
    const { items } = await fixture.ledger.listEntries({ kind: 'receipt' });
    const shown = await fixture.coordinator.receipt(run).catch(() => undefined);
    return items.length === 1 && shown?.payload === receipt.payload;
  });
  expect(await fixture.coordinator.run(run)).toMatchObject({ state: 'succeeded', steps: 2 });
});
