import type { JournalBody } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { Output } from './output.ts';
import { RunNarrator } from './run-narrative.ts';
import { stepRows } from './run-steps.ts';

const UNTIL = Date.UTC(2026, 0, 2);

function intent(step: number, verb: string, changes: object = {}): JournalBody {
  const resource = { rid: null, kind: null, name: null, desired: null };
  const common = { type: 'step-intent', class: 'ensure', action: 'create', before: null } as const;
  return { ...common, ...resource, step, verb, args: null, ...changes };
}

function result(step: number): JournalBody {
  return { type: 'step-result', step, result: null, durationMs: 1500 };
}

const WAITING: readonly JournalBody[] = [
  { type: 'started', runner: 'a', bootId: 'b', abi: '2', nowMs: 0 },
  intent(1, 'volume.ensure', { kind: 'volume', name: 'data' }),
  intent(2, 'container.ensure', {
    ...{ kind: 'container', name: 'web', action: 'replace', differs: ['image', 'memory'] },
  }),
  result(2),
  result(1),
  intent(3, 'waitFor', { args: { label: 'ready', every: '1s', timeout: '20s' } }),
  result(3),
  intent(4, 'sleep', { args: { untilMs: UNTIL, of: 'ready' }, before: { untilMs: UNTIL } }),
];

test('steps that run at once are told apart, and waiting is said in words', () => {
  const narrator = new RunNarrator(new Output('table'));
  const resumed = { ...WAITING[0], runner: 'c' } as JournalBody;
  const lines = [...WAITING, resumed].map((body) => narrator.tell(body, false));
  expect(lines).toEqual([
    'started       by a',
    'step   1      volume.ensure data … create',
    'step   2      container.ensure web … replace (image, memory)',
    'step   2 done container web 1.5 s',
    'step   1 done volume data 1.5 s',
    'step   3      waits for ready: looks every 1s, at most 20s',
    'step   3 done waitFor 1.5 s',
    'step   4      waits for ready, looks again until 2026-01-02T00:00:00.000Z',
    'taken up      by c',
  ]);
});

test('the rows of a run say what became of each step', () => {
  const rows = stepRows([
    ...WAITING,
    { type: 'undo-intent', step: 2 },
    { type: 'undo-result', step: 2, leftover: 'busy' },
    { type: 'undo-intent', step: 1 },
    { type: 'undo-result', step: 1, leftover: null },
  ]);
  expect(rows.map(({ step, state }) => [step, state])).toEqual([
    [1, 'undone'],
    [2, 'left'],
    [3, 'done'],
    [4, 'open'],
  ]);
});
