import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readExpected } from './expected-plans.ts';

const ONE = { id: `node_${'a'.repeat(32)}`, name: 'node-1' };
const TWO = { id: `node_${'b'.repeat(32)}`, name: 'node-2' };
const [HASH, OTHER] = ['1'.repeat(64), '2'.repeat(64)];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hypha-expect-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function planOf(node: string, changes: object = {}): object {
  const place = { realm: 'default', deployment: 'web', generation: 3 };
  const run = `run_${'c'.repeat(26)}`;
  const plan = { ...place, run, node, steps: [], removals: [], hash: HASH, state: 'complete' };
  return { v: 1, ...plan, ...changes };
}

function fileOf(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return `@${join(folder, name)}`;
}

test('nothing is expected when nothing was said', () => {
  expect(readExpected([], [ONE])).toBeUndefined();
});

test('a hash is of the one node, and of a named one when there are several', () => {
  expect(readExpected([HASH], [ONE])).toEqual({ [ONE.id]: HASH });
  const both = { [ONE.id]: HASH, [TWO.id]: OTHER };
  expect(readExpected([`node-1=${HASH}`, `${TWO.id}=${OTHER}`], [ONE, TWO])).toEqual(both);
});

test('a file holds what plan printed: one document, one a line, or a list', () => {
  const [one, two] = [planOf(ONE.id), planOf(TWO.id, { hash: OTHER })];
  const both = { [ONE.id]: HASH, [TWO.id]: OTHER };
  expect(readExpected([fileOf('one', JSON.stringify(one, null, 2))], [ONE])).toEqual({
    [ONE.id]: HASH,
  });
  const lines = `${JSON.stringify(one)}\n${JSON.stringify(two)}\n`;
  expect(readExpected([fileOf('lines', lines)], [ONE, TWO])).toEqual(both);
  expect(readExpected([fileOf('list', JSON.stringify([one, two]))], [ONE, TWO])).toEqual(both);
});

test.for([
  [['abc'], 'not a plan hash'],
  [[`other=${HASH}`], 'other is not asked'],
  [[HASH], '2 nodes are asked, and one hash is given'],
  [[`node-1=${HASH}`], 'no plan is expected on node-2'],
] as const)('%j is refused for two nodes, and says why', ([texts, says]) => {
  const targets = texts[0] === 'abc' ? [ONE] : [ONE, TWO];
  expect(() => readExpected(texts, targets)).toThrow(says);
});

test('a partial plan, and a file without one, cannot be expected', () => {
  const partial = planOf(ONE.id, { state: 'partial', reason: 'step 2, container.exec' });
  expect(() => readExpected([fileOf('partial', JSON.stringify(partial))], [ONE])).toThrow(
    expect.objectContaining({ code: 'E_PLAN_PARTIAL' }),
  );
  expect(() => readExpected([fileOf('none', '{}')], [ONE])).toThrow(
    expect.objectContaining({ code: 'E_ARGUMENT' }),
  );
});
