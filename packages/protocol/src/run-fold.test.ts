import { expect, test } from 'vitest';
import { GENESIS_HASH, type JournalBody, type JournalEvent } from './journal-event.ts';
import { EMPTY_RUN_FOLD, foldRun, foldRunEvent } from './run-fold.ts';

const RUN = `run_${'a'.repeat(26)}`;
const RID = 'a'.repeat(26);

function journalOf(...bodies: readonly JournalBody[]): readonly JournalEvent[] {
  return bodies.map((body, index) => ({
    run: RUN,
    seq: index + 1,
    epoch: 1,
    at: 1000 + index,
    prev: GENESIS_HASH,
    body,
    hash: GENESIS_HASH,
  }));
}

const accepted: JournalBody = {
  type: 'accepted',
  envelopeDigest: GENESIS_HASH,
  node: `node_${'a'.repeat(32)}`,
  realm: 'default',
  deployment: 'web',
  generation: 1,
  mode: 'apply',
  keyids: [],
  authoritySeq: 0,
};
const started: JournalBody = { type: 'started', runner: 'r', bootId: 'b', abi: '1', nowMs: 1 };
const intent: JournalBody = {
  type: 'step-intent',
  step: 1,
  verb: 'volume.ensure',
  class: 'ensure',
  args: {},
  rid: RID,
  kind: 'volume',
  name: 'data',
  action: 'create',
  before: null,
  desired: null,
};
const result = (simulated: boolean): JournalBody => ({
  type: 'step-result',
  step: 1,
  result: { $rid: RID, simulated },
  durationMs: 1,
});
const stepError: JournalBody = {
  type: 'step-error',
  step: 1,
  error: { code: 'E_IMAGE', message: 'no such image' },
  durationMs: 1,
};
const committed: JournalBody = {
  type: 'committed',
  output: 'null',
  outputSha256: GENESIS_HASH,
  desired: [],
};
const finished = (state: 'succeeded' | 'cancelled'): JournalBody => ({
  type: 'finished',
  state,
  problem: null,
  undone: 0,
  leftovers: [],
});

test('a run without events is accepted and nothing else', () => {
  expect(foldRun([])).toEqual(EMPTY_RUN_FOLD);
});

test('a successful run passes through running and committed to succeeded', () => {
  const states = journalOf(
    accepted,
    started,
    intent,
    result(false),
    committed,
    finished('succeeded'),
  ).map((_, index, events) => foldRun(events.slice(0, index + 1)).state);
  expect(states).toEqual(['accepted', 'running', 'running', 'running', 'committed', 'succeeded']);
});

test('times and the number of outcomes come from the events', () => {
  const fold = foldRun(
    journalOf(accepted, started, intent, stepError, committed, finished('succeeded')),
  );
  expect(fold).toMatchObject({ acceptedAt: 1000, startedAt: 1001, endedAt: 1005, steps: 1 });
});

test('a takeover does not move the start', () => {
  const fold = foldRun(journalOf(accepted, started, intent, started));
  expect(fold).toMatchObject({ state: 'running', startedAt: 1001 });
});

test('undo is seen with its problem from its first intent on, and a failed end keeps it', () => {
  const problem = { type: 't', title: 't', status: 422, detail: 'd', code: 'E_IMAGE', hint: 'h' };
  const undoing = [
    accepted,
    started,
    intent,
    stepError,
    { type: 'undo-intent', step: 1, problem },
  ] as const satisfies JournalBody[];
  expect(foldRun(journalOf(...undoing))).toMatchObject({ state: 'undoing', problem });
  const end: JournalBody = {
    type: 'finished',
    state: 'failed',
    problem,
    undone: 1,
    leftovers: [],
  };
  expect(foldRun(journalOf(...undoing, end))).toMatchObject({ state: 'failed', problem });
});

test('a problem that is no problem document is kept as details of one', () => {
  const end: JournalBody = {
    type: 'finished',
    state: 'failed',
    problem: { odd: true },
    undone: 0,
    leftovers: [],
  };
  expect(foldRun(journalOf(accepted, end)).problem).toMatchObject({
    code: 'E_INTERNAL',
    details: { odd: true },
  });
});

test('one simulated result marks the whole run', () => {
  expect(foldRun(journalOf(accepted, started, result(false))).simulated).toBe(false);
  expect(foldRun(journalOf(accepted, started, result(true), result(false))).simulated).toBe(true);
});

test('terminal states absorb', () => {
  const fold = foldRun(journalOf(accepted, finished('cancelled')));
  const after = journalOf(accepted, finished('cancelled'), started, finished('succeeded'));
  expect(after.slice(2).reduce(foldRunEvent, fold)).toEqual(fold);
});
