import {
  EMPTY_RUN_FOLD,
  eventHash,
  GENESIS_HASH,
  type JournalBody,
  type JournalEvent,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { expect, test } from 'vitest';
import { continueJournal, type JournalState } from './journal-intake.ts';

const RUN = `run_${'a'.repeat(26)}`;
const NODE = `node_${'a'.repeat(32)}`;
const DIGEST = 'd'.repeat(64);

const empty: JournalState = {
  run: RUN,
  node: NODE,
  digest: DIGEST,
  lastSeq: 0,
  head: GENESIS_HASH,
  fold: EMPTY_RUN_FOLD,
};

const accepted: JournalBody = {
  type: 'accepted',
  envelopeDigest: DIGEST,
  node: NODE,
  realm: 'default',
  deployment: 'web',
  generation: 1,
  mode: 'apply',
  keyids: [],
  authoritySeq: 0,
};
const line = (number: number): JournalBody => ({
  type: 'log',
  line: number,
  message: 'm',
  fields: {},
});
const finished: JournalBody = {
  type: 'finished',
  state: 'succeeded',
  problem: null,
  undone: 0,
  leftovers: [],
};

function journalOf(bodies: readonly JournalBody[], run = RUN): JournalEvent[] {
  let prev = GENESIS_HASH;
  return bodies.map((body, index) => {
    const event = { run, seq: index + 1, epoch: 1, at: 10 + index, prev, body };
    prev = eventHash(nodeVerifier, event);
    return { ...event, hash: prev };
  });
}

const whole = journalOf([accepted, line(1), line(2), finished]);
const hashesOf = (events: readonly JournalEvent[]) =>
  new Map(events.map(({ seq, hash }) => [seq, hash]));

function take(
  state: JournalState,
  events: readonly JournalEvent[],
  stored: readonly JournalEvent[] = [],
) {
  return continueJournal(nodeVerifier, state, events, hashesOf(stored));
}

/** What is stored once these events are. */
function stateAfter(events: readonly JournalEvent[]): JournalState {
  const { fold, lastSeq, head } = take(empty, events);
  return { ...empty, fold, lastSeq, head };
}

test('a whole journal is taken and folded', () => {
  const intake = take(empty, whole);
  expect(intake).toMatchObject({ events: whole, lastSeq: 4, head: whole[3]?.hash });
  expect(intake.fold.state).toBe('succeeded');
  expect(intake.wanted ?? intake.contradiction).toBeUndefined();
});

test.for([1, 2, 3])('a journal cut after event %i and sent again whole ends the same', (cut) => {
  const stored = whole.slice(0, cut);
  const intake = take(stateAfter(stored), whole, stored);
  expect(intake.events).toEqual(whole.slice(cut));
  expect(intake).toMatchObject({ lastSeq: 4, head: whole[3]?.hash });
});

test('the same events again change nothing', () => {
  const intake = take(stateAfter(whole), whole, whole);
  expect(intake).toMatchObject({ events: [], lastSeq: 4 });
  expect(intake.contradiction).toBeUndefined();
});

test('a gap asks for the first missing event and keeps what came before it', () => {
  const gap = whole.filter(({ seq }) => seq !== 3);
  expect(take(empty, gap)).toMatchObject({ wanted: 3, lastSeq: 2 });
  expect(take(empty, whole.slice(2))).toMatchObject({ wanted: 1, events: [] });
});

const otherWorld = journalOf([accepted, line(7), line(2), finished]);
const [first, second, third] = whole;
if (first === undefined || second === undefined || third === undefined)
  throw new Error('no events');

test.for<[string, JournalState, readonly JournalEvent[], readonly JournalEvent[], string]>([
  ['another event at a stored seq', stateAfter(whole), otherWorld, whole, 'stored before'],
  [
    'a chain that leaves the stored one',
    stateAfter([first, second]),
    otherWorld.slice(2),
    [],
    'follow',
  ],
  ['a body changed after hashing', empty, [{ ...first, at: 99 }], [], 'hash'],
  ['a hash changed', empty, [{ ...first, hash: 'f'.repeat(64) }], [], 'hash'],
  ['a first event that is not accepted', empty, journalOf([line(1)]), [], 'is log'],
  ['a second accepted', empty, journalOf([accepted, accepted]), [], 'is accepted'],
  ['an event after the end', empty, journalOf([accepted, finished, line(1)]), [], 'had finished'],
  ['events of another run', empty, journalOf([accepted], `run_${'b'.repeat(26)}`), [], 'of run'],
  ['an event twice in one batch', empty, [first, first], [], 'twice'],
  [
    'another envelope',
    empty,
    journalOf([{ ...accepted, envelopeDigest: 'e'.repeat(64) }]),
    [],
    'of envelope',
  ],
  [
    'another node',
    empty,
    journalOf([{ ...accepted, node: `node_${'b'.repeat(32)}` }]),
    [],
    'of node_b',
  ],
])('%s is a contradiction', ([, state, events, stored, reason]) => {
  expect(take(state, events, stored).contradiction).toContain(reason);
});

test('nothing at or after a contradiction is taken', () => {
  const intake = take(empty, [first, { ...second, at: 99 }, third]);
  expect(intake).toMatchObject({ events: [first], lastSeq: 1, head: first.hash });
});
