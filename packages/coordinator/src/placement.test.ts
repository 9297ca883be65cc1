import type { NodeView } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { type Candidate, type PlacementAsk, place } from './placement.ts';

const GIB = 1024 ** 3;
const NOTHING = { milliCpus: 0, memoryBytes: 0, storageBytes: 0 };
const letters = 'abcdefghijklmnopqrstuvwxyz';

function candidate(
  name: string,
  node: Partial<NodeView> = {},
  rest: Partial<Candidate> = {},
): Candidate {
  return {
    node: {
      id: `node_${name.repeat(32).slice(0, 32)}`,
      name,
      state: 'ready',
      labels: {},
      realms: ['default'],
      ...{ keyid: '', publicKey: '', sealKey: '' },
      enrolledAt: 0,
      lastReportAt: 0,
      bootId: '',
      uptimeMs: 0,
      facts: {
        hostname: name,
        os: '',
        kernel: '',
        arch: '',
        cpus: 4,
        memoryBytes: 8 * GIB,
        storageBytes: 100 * GIB,
        hyphaVersion: '',
        nodeVersion: '',
        cgroups: 'v2',
        sals: {},
      },
      free: { milliCpus: 4000, memoryBytes: 8 * GIB, storageBytes: 100 * GIB },
      ...node,
    },
    held: null,
    sent: NOTHING,
    waiting: 0,
    ...rest,
  };
}

function ask(changes: Partial<PlacementAsk> = {}): PlacementAsk {
  return {
    realm: 'default',
    mode: 'apply',
    count: 1,
    labels: {},
    resources: { milliCpus: 1000, memoryBytes: GIB, storageBytes: GIB },
    mustBeReachable: false,
    ...changes,
  };
}

const names = (verdicts: readonly { name: string }[]) => verdicts.map(({ name }) => name);
const free = (milliCpus: number) => ({ milliCpus, memoryBytes: 8 * GIB, storageBytes: 100 * GIB });

test('the node with most of its scarcest resource left is chosen', () => {
  const { chosen, refused } = place(
    [candidate('a', { free: free(2000) }), candidate('b'), candidate('c', { free: free(3000) })],
    ask({ count: 2 }),
  );
  expect(names(chosen)).toEqual(['b', 'c']);
  expect(refused).toEqual([
    expect.objectContaining({ name: 'a', reason: expect.stringContaining('2 others rank higher') }),
  ]);
});

test('a node that holds the deployment comes before an emptier one, also while it is away', () => {
  const { chosen } = place(
    [
      candidate('a'),
      candidate('b', { free: free(1500) }, { held: NOTHING }),
      candidate('c', { state: 'unreachable' }, { held: NOTHING }),
      candidate('d', { state: 'unreachable' }),
    ],
    ask({ count: 4 }),
  );
  expect(names(chosen)).toEqual(['b', 'c', 'a', 'd']);
  expect(chosen[0]?.reason).toContain('holds the deployment');
});

test('the same candidates in another order give the same choice', () => {
  const candidates = [candidate('c'), candidate('a'), candidate('b')];
  const once = place(candidates, ask({ count: 2 }));
  expect(place([...candidates].reverse(), ask({ count: 2 })).chosen).toEqual(once.chosen);
  expect(names(once.chosen)).toEqual(['a', 'b']);
});

test.for([
  ['revoked', { state: 'revoked' }, {}, 'E_KEY_REVOKED', 'revoked'],
  ['pending', { state: 'pending' }, {}, 'E_FORBIDDEN', 'admission'],
  ['cordoned', { state: 'cordoned' }, {}, 'E_FORBIDDEN', 'cordoned'],
  ['of another realm', { realms: ['other'] }, {}, 'E_AUDIENCE', 'realm default'],
  ['without the label', { labels: {} }, {}, 'E_AUDIENCE', 'label zone is not eu (no such label)'],
  ['with another label', { labels: { zone: 'us' } }, {}, 'E_AUDIENCE', 'zone is not eu (us)'],
  ['with too long a queue', {}, { waiting: LIMITS.pendingPerNodeMax }, 'E_RATE', 'wait for it'],
  ['too full', { free: free(999) }, {}, 'E_CAPACITY', 'milliCpus 1000 is over its free 999'],
] as const)('a node %s is refused with its reason', ([, node, rest, code, reason]) => {
  const labels = { zone: 'eu' };
  const { chosen, refused } = place(
    [candidate('a', { labels, ...node } as Partial<NodeView>, rest)],
    ask({ labels }),
  );
  expect(chosen).toEqual([]);
  expect(refused).toEqual([
    expect.objectContaining({ name: 'a', code, reason: expect.stringContaining(reason) }),
  ]);
});

test('a node of every realm serves any', () => {
  expect(place([candidate('a', { realms: ['*'] })], ask({ realm: 'x' })).chosen).toHaveLength(1);
});

test('a proposal leaves out a node that is away', () => {
  const { chosen, refused } = place(
    [candidate('a', { state: 'unreachable' })],
    ask({ mustBeReachable: true }),
  );
  expect(chosen).toEqual([]);
  expect(refused[0]).toMatchObject({ code: 'E_UNAVAILABLE' });
});

test('work sent since the last report is no longer free', () => {
  const sent = { ...NOTHING, milliCpus: 3500 };
  expect(place([candidate('a', {}, { sent })], ask()).refused[0]).toMatchObject({
    code: 'E_CAPACITY',
    reason: expect.stringContaining('free 500'),
  });
});

test('what the node holds of this deployment is free for its next revision', () => {
  const full = { milliCpus: 0, memoryBytes: 0, storageBytes: 0 };
  const held = { milliCpus: 1000, memoryBytes: GIB, storageBytes: GIB };
  expect(place([candidate('a', { free: full }, { held })], ask()).chosen).toHaveLength(1);
  expect(place([candidate('a', { free: full })], ask()).chosen).toHaveLength(0);
});

test('a destroy needs no capacity and passes a cordon', () => {
  const cordoned = candidate('a', { state: 'cordoned', free: free(0) });
  expect(place([cordoned], ask({ mode: 'destroy' })).chosen).toHaveLength(1);
});

test('the list of refused nodes is bounded', () => {
  const many = Array.from({ length: LIMITS.refusedListedMax + 5 }, (_, index) =>
    candidate(`${letters[index % 26]}`, { state: 'revoked' }),
  );
  expect(place(many, ask()).refused).toHaveLength(LIMITS.refusedListedMax);
});

test('plans and tasks reserve nothing, so they need no capacity; only a task passes a cordon', () => {
  const full = candidate('a', { free: free(0) });
  const cordoned = candidate('b', { state: 'cordoned' });
  for (const mode of ['plan', 'task'] as const) {
    expect(place([full], ask({ mode })).chosen).toHaveLength(1);
  }
  expect(place([cordoned], ask({ mode: 'task' })).chosen).toHaveLength(1);
  expect(place([cordoned], ask({ mode: 'plan' })).refused).toMatchObject([{ code: 'E_FORBIDDEN' }]);
});

test('a plan and a task go where the deployment is', () => {
  const holder = candidate('b', { free: free(100) }, { held: NOTHING });
  for (const mode of ['plan', 'task'] as const) {
    expect(place([candidate('a'), holder], ask({ mode })).chosen).toMatchObject([{ name: 'b' }]);
  }
});
