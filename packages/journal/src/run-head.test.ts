import {
  canonicalJson,
  eventHash,
  firstBrokenEvent,
  type JournalBody,
  JournalEvent,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { expect, test } from 'vitest';
import { JOURNAL_LIMITS } from './journal-limits.ts';
import { RunHead } from './run-head.ts';
import {
  acceptedOf,
  admissionOf,
  committed,
  finished,
  intent,
  result,
  started,
} from './testing/journal-fixture.ts';

const admission = admissionOf();
const { run } = admission;
const accepted = acceptedOf(admission);
const failure: JournalBody = {
  type: 'step-error',
  step: 1,
  error: { code: 'E_SAL', message: 'no' },
  durationMs: 1,
};
const undoIntent: JournalBody = { type: 'undo-intent', step: 1 };
const undone: JournalBody = { type: 'undo-result', step: 1, leftover: null };
const log = (line: number): JournalBody => ({ type: 'log', line, message: 'm', fields: null });

function headAfter(...bodies: readonly JournalBody[]): RunHead {
  const head = new RunHead(nodeVerifier, run);
  for (const [at, body] of bodies.entries()) head.append(body, { epoch: 1, at });
  return head;
}

test('appended events make a whole chain', () => {
  const head = new RunHead(nodeVerifier, run);
  const events = [accepted, started(), log(1), intent(1, null), result(1), committed()].map(
    (body, at) => JournalEvent.parse(JSON.parse(head.append(body, { epoch: 1, at }).text)),
  );
  expect(firstBrokenEvent(nodeVerifier, events)).toBeNull();
  expect(head.hash).toBe(events.at(-1)?.hash);
  expect(head.state).toBe('committed');
  expect(RunHead.fromEvents(nodeVerifier, run, events).hash).toBe(head.hash);
});

test('the stored text of an event is its canonical JSON', () => {
  const head = headAfter(accepted, started());
  const { event, text } = head.append(
    { type: 'log', line: 1, message: 'naïve \u{1f980} "q"', fields: { b: 1, a: [null, 'é'] } },
    { epoch: 3, at: 9 },
  );
  expect(text).toBe(canonicalJson(event));
  expect(event.hash).toBe(eventHash(nodeVerifier, event));
});

test('a changed event is noticed when the journal is read again', () => {
  const head = new RunHead(nodeVerifier, run);
  const [first, second] = [accepted, started()].map(
    (body) => head.append(body, { epoch: 1, at: 5 }).event,
  );
  if (first === undefined || second === undefined) throw new Error('two events were appended');
  const forged = { ...second, at: 6 };
  expect(() => RunHead.fromEvents(nodeVerifier, run, [first, forged])).toThrow(/broken at event 2/);
});

const ILLEGAL: readonly [string, readonly JournalBody[], JournalBody][] = [
  ['anything before accepted', [], started()],
  ['accepted twice', [accepted], accepted],
  ['a step before the start', [accepted], intent(1, null)],
  ['the same step twice', [accepted, started(), intent(1, null)], intent(1, null)],
  ['an outcome without intent', [accepted, started()], result(1)],
  ['a second outcome', [accepted, started(), intent(1, null), result(1)], failure],
  ['a commit with a step in flight', [accepted, started(), intent(1, null)], committed()],
  ['a step after the commit', [accepted, started(), committed()], intent(1, null)],
  [
    'an undo after the commit',
    [accepted, started(), intent(1, null), result(1), committed()],
    undoIntent,
  ],
  ['a failure after the commit', [accepted, started(), committed()], finished('failed')],
  ['success without commit', [accepted, started()], finished('succeeded')],
  ['success before the start', [accepted], finished('succeeded')],
  ['an undo of an unknown step', [accepted, started()], undoIntent],
  [
    'an undo result without intent',
    [accepted, started(), intent(1, null), undoIntent, undone],
    undone,
  ],
  ['a step after undo began', [accepted, started(), intent(1, null), undoIntent], intent(2, null)],
  [
    'a commit after undo began',
    [accepted, started(), intent(1, null), result(1), undoIntent],
    committed(),
  ],
  ['a log line twice', [accepted, started(), log(1)], log(1)],
  ['a log line too far', [accepted, started()], log(2)],
  ['a second start of an epoch', [accepted, started()], started()],
  ['anything after the end', [accepted, started(), finished('failed')], started()],
];

test.for(ILLEGAL)('refuses %s', ([, before, body]) => {
  const head = headAfter(...before);
  expect(() => head.append(body, { epoch: 1, at: 9 })).toThrowError(
    expect.objectContaining({ code: 'E_CONFLICT' }),
  );
});

test('a newer epoch starts again and repeats an undo that has no result', () => {
  const head = headAfter(accepted, started(), intent(1, null), undoIntent);
  for (const body of [started(), undoIntent, undone, finished('failed', 'E_SCRIPT')]) {
    head.append(body, { epoch: 2, at: 9 });
  }
  expect(head.state).toBe('failed');
  expect(head.fold.problem?.code).toBe('E_SCRIPT');
});

test('an event over its bound is refused', () => {
  const head = headAfter(accepted, started());
  const big = 'x'.repeat(600 * 1024);
  expect(() =>
    head.append({ type: 'log', line: 1, message: big, fields: null }, { epoch: 1, at: 1 }),
  ).toThrowError(expect.objectContaining({ code: 'E_SIZE' }));
});

test('a full journal takes no further step, but the undo and the end', () => {
  const head = headAfter(accepted, started(), intent(1, null), result(1));
  const message = 'x'.repeat(500 * 1024);
  const lines = JOURNAL_LIMITS.runBytesMax / message.length + 1;
  const fill = () => {
    for (let line = 1; line <= lines; line++) {
      head.append({ type: 'log', line, message, fields: null }, { epoch: 1, at: 1 });
    }
  };
  expect(fill).toThrowError(expect.objectContaining({ code: 'E_OUTPUT' }));
  for (const body of [undoIntent, undone, finished('failed')])
    head.append(body, { epoch: 1, at: 2 });
  expect(head.state).toBe('failed');
});
