import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import type { FakeNode } from './testing/fake-node.ts';
import { TestFleet } from './testing/test-fleet.ts';

let fleet: TestFleet;
let a: FakeNode;
let b: FakeNode;
beforeAll(async () => {
  fleet = await TestFleet.start();
  a = await fleet.addNode('a');
  b = await fleet.addNode('b');
});
afterAll(() => fleet.stop());

async function apply(deployment: string, node: FakeNode, generation = 1, realm = 'default') {
  return (await fleet.submit({ deployment, nodes: [node.id], generation, realm })).run;
}

/** Every item of a list, one a page. */
async function walk<T>(
  list: (query: { limit: number; cursor?: string | undefined }) => Promise<{
    items: T[];
    nextCursor: string | null;
  }>,
): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | null | undefined;
  while (cursor !== null) {
    const page = await list({ limit: 1, cursor });
    expect(page.items.length).toBeLessThanOrEqual(1);
    items.push(...page.items);
    cursor = page.nextCursor;
  }
  return items;
}

test('runs are listed newest first, filtered, page by page', async () => {
  const runs = [
    await apply('one', a),
    await apply('two', b),
    await apply('one', a, 2),
    await apply('one', b, 1, 'other'),
  ];
  const { coordinator } = fleet;
  const ids = (items: readonly { run: string }[]) => items.map(({ run }) => run);
  expect(ids(await walk((query) => coordinator.listRuns(query)))).toEqual([...runs].reverse());
  const filtered = async (filter: Parameters<typeof coordinator.listRuns>[0]) =>
    ids((await coordinator.listRuns(filter)).items).sort();
  expect(await filtered({ deployment: 'one' })).toEqual([runs[0], runs[2], runs[3]].sort());
  expect(await filtered({ deployment: 'default/one' })).toEqual([runs[0], runs[2]].sort());
  expect(await filtered({ node: b.id })).toEqual([runs[1], runs[3]].sort());
  expect(await filtered({ state: 'succeeded' })).toEqual([]);
  expect(await filtered({ since: Date.now() + 60_000 })).toEqual([]);
  expect(await filtered({ since: 0, state: 'accepted' })).toHaveLength(4);
});

test('deployments and their revisions are listed page by page', async () => {
  const { coordinator } = fleet;
  const deployments = await walk((query) => coordinator.listDeployments(query));
  expect(deployments.map((each) => `${each.realm}/${each.deployment} ${each.generation}`)).toEqual([
    'default/one 2',
    'default/two 1',
    'other/one 1',
  ]);
  const revisions = await walk((query) => coordinator.listRevisions('default', 'one', query));
  expect(revisions.map(({ generation, runs }) => [generation, runs.length])).toEqual([
    [2, 1],
    [1, 1],
  ]);
});

test('nodes are listed page by page', async () => {
  const nodes = await walk((query) => fleet.coordinator.listNodes(query));
  expect(nodes.map(({ id }) => id)).toEqual([a.id, b.id].sort());
});

test.for([
  ['/v1/runs?limit=0', 'E_REQUEST'],
  ['/v1/runs?limit=501', 'E_REQUEST'],
  ['/v1/runs?cursor=abc', 'E_REQUEST'],
  ['/v1/runs?since=yesterday', 'E_REQUEST'],
  ['/v1/runs?state=odd', 'E_REQUEST'],
  ['/v1/runs?deployment=a/b/c', 'E_REQUEST'],
  ['/v1/runs?unknown=1', 'E_REQUEST'],
  ['/v1/runs/run_x', 'E_REQUEST'],
  [`/v1/runs/run_${'a'.repeat(26)}`, 'E_NOT_FOUND'],
  [`/v1/runs/run_${'a'.repeat(26)}/journal`, 'E_NOT_FOUND'],
  [`/v1/runs/run_${'a'.repeat(26)}/output`, 'E_NOT_FOUND'],
  [`/v1/runs/run_${'a'.repeat(26)}/receipt`, 'E_NOT_FOUND'],
  ['/v1/deployments/default/none', 'E_NOT_FOUND'],
  ['/v1/deployments/default/none/revisions', 'E_NOT_FOUND'],
  ['/v1/deployments/default/..%2f..', 'E_REQUEST'],
  ['/v1/deployments?cursor=WyJ4Il0', 'E_REQUEST'],
])('GET %s is a problem document of %s', async ([path = '', code]) => {
  const { http } = fleet.coordinator;
  const url = new URL(path, http.baseUrl);
  const query = Object.fromEntries(url.searchParams.entries());
  const asked = http.request({ method: 'GET', path: url.pathname, query, answer: z.unknown() });
  await expect(asked).rejects.toMatchObject({ code, hint: expect.stringMatching(/\w/) });
});

test('output and receipt of a run that has none yet say how far it is', async () => {
  const run = await apply('early', a);
  await expect(fleet.coordinator.output(run)).rejects.toMatchObject({
    code: 'E_NOT_FOUND',
    message: expect.stringContaining('it is accepted'),
  });
  await expect(fleet.coordinator.receipt(run)).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
});

test('every endpoint is described', async () => {
  const response = await fetch(`${fleet.coordinatorProcess.url}/openapi.json`);
  const { paths } = (await response.json()) as { paths: Record<string, object> };
  expect(Object.keys(paths)).toEqual(
    expect.arrayContaining([
      '/v1/placements',
      '/v1/deployments',
      '/v1/deployments/{realm}/{name}/revisions',
      '/v1/runs/{id}/events',
      '/v1/nodes/{id}/inbox',
      '/v1/nodes/{id}/outbox',
      '/v1/nodes/{id}/cordon',
      '/v1/events',
    ]),
  );
});
