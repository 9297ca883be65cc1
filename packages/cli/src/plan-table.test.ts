import type { PlanDocument } from '@hypha/protocol';
import { afterEach, expect, test, vi } from 'vitest';
import { Output } from './output.ts';
import { showPlan } from './plan-table.ts';

const STEP = { verb: 'volume.ensure', kind: 'volume', specHash: null, differs: [] };
const PLAN: PlanDocument = {
  ...{ v: 1, run: `run_${'a'.repeat(26)}`, node: `node_${'b'.repeat(32)}`, realm: 'default' },
  ...{ deployment: 'web', generation: 3, state: 'complete', hash: '1'.repeat(64) },
  steps: [
    { ...STEP, step: 1, name: 'data', action: 'no-op' },
    {
      ...STEP,
      ...{ step: 2, verb: 'container.ensure', kind: 'container', name: 'web' },
      ...{ action: 'replace', differs: ['image'] },
    },
  ],
  removals: [{ kind: 'volume', name: 'old', action: 'retain' }],
};

afterEach(() => vi.restoreAllMocks());

function shown(plan: PlanDocument, format: 'table' | 'json'): string[] {
  const lines: string[] = [];
  const take = (text: string | Uint8Array) => {
    lines.push(...String(text).trimEnd().split('\n'));
    return true;
  };
  vi.spyOn(process.stdout, 'write').mockImplementation(take);
  vi.spyOn(process.stderr, 'write').mockImplementation(take);
  showPlan(new Output(format), plan, { node: 'node-1', next: 'hypha apply web.ts --expect 1' });
  return lines;
}

test('a plan is a table of steps and removals, and ends with its hash and what to type', () => {
  expect(shown(PLAN, 'table')).toEqual([
    'plan of default/web generation 3 on node-1',
    'STEP  RESOURCE       CHANGE',
    '1     volume data    no-op',
    '2     container web  replace (image)',
    '      volume old     retain: no longer declared, its data stays',
    'in all        1 no-op, 1 replace, 1 retain',
    `hash          ${PLAN.hash}`,
    'exactly this: hypha apply web.ts --expect 1, with the same flags',
  ]);
});

test('a partial plan says where it ends, and no hash to expect', () => {
  const plan = { ...PLAN, state: 'partial', reason: 'step 3, container.exec' } as const;
  const lines = shown(plan, 'table');
  expect(lines.at(-1)).toBe('partial: step 3, container.exec');
  expect(lines.join()).not.toContain('hash ');
});

test('for programs it is the document itself', () => {
  expect(shown(PLAN, 'json').map((line) => JSON.parse(line))).toEqual([PLAN]);
});
