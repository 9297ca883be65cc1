import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { HyphaError } from '@hypha/protocol';
import { isReadableByAll } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { type NodeFixture, nodeOfAllTests, until } from './testing/node-fixture.ts';

const isConfining = process.geteuid?.() === 0 && existsSync('/usr/bin/setpriv');
const fixture = await nodeOfAllTests();

const effectsOn = (name: string) =>
  fixture.sals.effects().filter((effect) => effect.endsWith(` ${name}`));
const isThere = (name: string) => fixture.sals.things().includes(name);

async function stateOf(name: string): Promise<string | undefined> {
  const { items } = await fixture.api.listResources();
  return items.find((resource) => resource.name === name)?.status;
}

test('a signed script makes its resources and ends in a receipt everybody has', async () => {
  const envelope = fixture.sign(
    `const data = await volume('data', { size: 5 });
    await container('web', { size: 7 });
    log('made', { name: data.name });
    return { name: data.name };`,
  );
  const run = await fixture.submit(envelope);
  const view = await fixture.waitForEnd(run);
  expect(view).toMatchObject({ state: 'succeeded', steps: 2, simulated: true, problem: null });
  expect(fixture.sals.things()).toEqual(['data', 'web']);
  expect(fixture.sals.effects()).toEqual(['make data', 'make web']);
  expect(await fixture.api.output(run)).toMatchObject({ output: { name: 'data' } });
  expect(await fixture.api.envelope(run)).toEqual(envelope);
  const receipt = await fixture.api.receipt(run);
  await until('ledger and coordinator have the receipt', async () => {
    const { items } = await fixture.ledger.listEntries({ kind: 'receipt', run });
    const shown = await fixture.coordinator.receipt(run).catch(() => undefined);
    return items.length === 1 && shown?.payload === receipt.payload;
  });
  expect(await fixture.coordinator.run(run)).toMatchObject({ state: 'succeeded', steps: 2 });
});

test('work from the coordinator takes the same way, and comes once however often it is sent', async () => {
  const envelope = fixture.sign(`await container('routed', {}); return 1;`, {
    deployment: 'routed',
  });
  const { runs } = await fixture.coordinator.submit({ envelope });
  const run = runs[0]?.run ?? '';
  await until(
    'the node has it',
    async () => (await fixture.api.run(run).catch(() => null)) !== null,
  );
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect(await fixture.api.submit({ envelope })).toMatchObject({ existing: true, runs: [{ run }] });
  expect(effectsOn('routed')).toEqual(['make routed']);
});

test('events stream from any point to the end', async () => {
  const run = await fixture.submit(fixture.sign(`log('one'); return 1;`, { deployment: 'events' }));
  const types: string[] = [];
  const signal = AbortSignal.timeout(20_000);
  for await (const { event } of fixture.api.runEvents(run, { signal })) types.push(event);
  expect(types).toEqual(['accepted', 'started', 'log', 'committed', 'finished']);
  const rest: string[] = [];
  for await (const { id } of fixture.api.runEvents(run, { lastEventId: '3', signal }))
    rest.push(id);
  expect(rest).toEqual(['4', '5']);
});

test('a script that throws is undone, and its problem names the place', async () => {
  const run = await fixture.submit(
    fixture.sign(`await container('broken', {}); throw new Error('no');`, { deployment: 'broken' }),
  );
  const view = await fixture.waitForEnd(run);
  expect(view).toMatchObject({
    state: 'failed',
    problem: { code: 'E_SCRIPT', where: { line: 3 } },
  });
  expect(effectsOn('broken')).toEqual(['make broken', 'undo broken']);
  expect(await stateOf('broken')).toBeUndefined();
});

const REFUSED: readonly [string, string, () => Parameters<NodeFixture['sign']>][] = [
  [
    'E_SECRET',
    'a box that does not open',
    () => ['return 1;', { secrets: { [fixture.node]: 'AA==' } }],
  ],
  [
    'E_UNSUPPORTED',
    'a task that expects a plan',
    () => ['return 1;', { mode: 'task', expect: { [fixture.node]: '0'.repeat(64) } }],
  ],
  ['E_SCRIPT_SYNTAX', 'a script that does not parse', () => ['return (;', {}]],
  ['E_AUDIENCE', 'work for another node', () => ['', { nodes: [`node_${'a'.repeat(32)}`] }]],
  ['E_SUPERSEDED', 'an older generation', () => ['return 1;', { generation: 1 }]],
  [
    'E_CAPACITY',
    'more than the node has',
    () => [
      'return 1;',
      {
        deployment: 'large',
        limits: { resources: { milliCpus: 1, memoryBytes: 1, storageBytes: 10_000_000 } },
      },
    ],
  ],
];

test.for(REFUSED)('answers %s for %s, and nothing is kept', async ([code, , draft]) => {
  const before = await fixture.api.listRuns({ limit: 500 });
  const refusal = await fixture.api.submit({ envelope: fixture.sign(...draft()) }).catch((e) => e);
  expect(refusal).toBeInstanceOf(HyphaError);
  expect(refusal.code).toBe(code);
  const after = await fixture.api.listRuns({ limit: 500 });
  expect(after.items.length).toBe(before.items.length);
});

test('a run that waits is cancelled by a newer one, and the newest gets its turn', async () => {
  const sign = (name: string) =>
    fixture.sign(`await container('${name}', {}); return 1;`, { deployment: 'turns' });
  await fixture.sals.hold('turn-1');
  const first = await fixture.submit(sign('turn-1'));
  await fixture.untilHeld('turn-1');
  const second = await fixture.submit(sign('turn-2'));
  const third = await fixture.submit(sign('turn-3'));
  expect(await fixture.waitForEnd(second)).toMatchObject({
    state: 'cancelled',
    problem: { code: 'E_SUPERSEDED' },
  });
  expect((await fixture.api.run(third)).state).toBe('accepted');
  await fixture.sals.letGo('turn-1');
  expect(await fixture.waitForEnd(first)).toMatchObject({ state: 'succeeded' });
  expect(await fixture.waitForEnd(third)).toMatchObject({ state: 'succeeded' });
  expect(isThere('turn-1')).toBe(false);
  expect(isThere('turn-2')).toBe(false);
  expect(isThere('turn-3')).toBe(true);
  await fixture.api.receipt(second);
});

test('what is no longer declared is gone when the run ends, volumes stay and are listed', async () => {
  const sign = (body: string, draft = {}) => fixture.sign(body, { deployment: 'prune', ...draft });
  const both = `await volume('prune-data', {}); await container('prune-web', {}); return 1;`;
  await fixture.waitForEnd(await fixture.submit(sign(both)));
  const run = await fixture.submit(sign('', { mode: 'destroy' }));
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded', mode: 'destroy' });
  expect(isThere('prune-web')).toBe(false);
  expect(isThere('prune-data')).toBe(true);
  expect(await stateOf('prune-web')).toBeUndefined();
  expect(await stateOf('prune-data')).toBe('retained');
  const last = await fixture.submit(sign('', { mode: 'destroy', deleteData: ['prune-data'] }));
  expect(await fixture.waitForEnd(last)).toMatchObject({ state: 'succeeded' });
  expect(isThere('prune-data')).toBe(false);
  expect(await stateOf('prune-data')).toBeUndefined();
});

test('what is lost is made again, and what an unfinished run works on is left alone', async () => {
  await fixture.waitForEnd(
    await fixture.submit(
      fixture.sign(`await container('lost', {}); await container('busy', {}); return 1;`, {
        deployment: 'lost',
      }),
    ),
  );
  await fixture.sals.lose('lost');
  await until('it is back', () => effectsOn('lost').length === 2);
  expect(effectsOn('lost')).toEqual(['make lost', 'repair lost']);
  await fixture.sals.hold('busy');
  const run = await fixture.submit(
    fixture.sign(`await container('busy', { size: 2 }); return 1;`, { deployment: 'lost' }),
  );
  await fixture.untilHeld('busy');
  await fixture.sals.lose('busy');
  await fixture.sals.lose('lost');
  await until('the other is back', () => isThere('lost'));
  expect(isThere('busy')).toBe(false);
  await fixture.sals.letGo('busy');
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect(effectsOn('busy')).toEqual(['make busy', 'make busy']);
});

test('runs and runners are counted', async () => {
  const numbers = await (await fetch(`${fixture.supervisor.url}/metrics`)).text();
  for (const name of ['runs_waiting 0', 'runs_taken_over 0', 'runners_fenced 0']) {
    expect(numbers).toContain(`hypha_${name}`);
  }
  expect(numbers).toContain('hypha_runners_connected 1');
  expect(numbers).toContain('hypha_cancels_accepted 0');
});

test('logs, facts and single resources can be read', async () => {
  await fixture.waitForEnd(
    await fixture.submit(
      fixture.sign(`await container('seen', { size: 3 }); return 1;`, { deployment: 'seen' }),
    ),
  );
  const name = { realm: 'default', deployment: 'seen', kind: 'container', name: 'seen' };
  expect(await fixture.api.resource(name)).toMatchObject({
    status: 'committed',
    state: 'running',
    simulated: true,
    spec: { size: 3 },
  });
  const lines: string[] = [];
  const signal = AbortSignal.timeout(10_000);
  for await (const { data } of fixture.api.resourceLogs(name, { signal })) lines.push(data);
  expect(lines).toEqual(['seen line 1', 'seen line 2']);
  expect((await fixture.api.facts()).storageBytes).toBe(1_000_000);
  await expect(fixture.api.resource({ ...name, name: 'unseen' })).rejects.toMatchObject({
    code: 'E_NOT_FOUND',
  });
});

test('a node says what protects it, by what its processes are', async () => {
  const { protection } = await fixture.api.facts();
  const stateOf = (what: string) => protection.find((each) => each.what === what);
  expect(stateOf('redis users')).toMatchObject({ ok: true });
  expect(stateOf('redis connection')).toMatchObject({ ok: true });
  expect(stateOf('state folder')).toMatchObject({ ok: true });
  expect(stateOf('tls')).toMatchObject({ ok: true });
  // In a checkout that others cannot read, hosts keep the user of their runner.
  const isOpen = isReadableByAll(fileURLToPath(import.meta.url));
  expect(stateOf('sandbox')).toMatchObject({ ok: isConfining && isOpen });
});

test('a runner is given no key, no password by its arguments, and not all that root may do', async () => {
  const started = [...fixture.supervisor.log.matchAll(/"pid":(\d+),"msg":"runner started"/g)];
  const pid = started.at(-1)?.[1] ?? '';
  const read = (file: string) => readFileSync(`/proc/${pid}/${file}`, 'utf8');
  // Bits of CAP_SYS_MODULE, CAP_SYS_RAWIO and CAP_SYS_BOOT (capabilities(7)).
  const bounds = BigInt(`0x${/^CapBnd:\s*(.*)$/m.exec(read('status'))?.[1]}`);
  if (isConfining) {
    expect(bounds & ((1n << 16n) | (1n << 17n) | (1n << 22n))).toBe(0n);
    expect(read('status')).toMatch(/^NoNewPrivs:\s*1$/m);
  }
  const environment = read('environ');
  expect(environment).toContain('HYPHA_RUNNER_REDIS_PASSWORD=');
  const password = /HYPHA_RUNNER_REDIS_PASSWORD=([^\0]+)/.exec(environment)?.[1] ?? '';
  const token = /HYPHA_RUNNER_TOKEN=([^\0]+)/.exec(environment)?.[1] ?? '';
  expect(password).not.toBe('');
  for (const secret of [password, token]) {
    expect(read('cmdline')).not.toContain(secret);
    expect(fixture.supervisor.log).not.toContain(secret);
  }
  expect(environment).not.toMatch(/PRIVATE KEY|\.pem|identity/);
  expect(environment.split('\0').filter((line) => /KEY|JOIN|LEDGER/.test(line))).toEqual([]);
});

test('a revoked key gets no further work in, and a signed read needs a known key', async () => {
  await fixture.change({ type: 'revoke', keyid: fixture.operator.keyid, reason: 'test' });
  const envelope = fixture.sign('return 1;', { deployment: 'late' });
  await until('the node knows', async () => {
    const refusal = await fixture.api.submit({ envelope }).catch((error) => error);
    return refusal instanceof HyphaError && refusal.code === 'E_KEY_REVOKED';
  });
});
