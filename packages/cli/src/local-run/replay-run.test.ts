import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GuestCall, JournalBody, JournalEvent } from '@hypha/protocol';
import { SandboxPool } from '@hypha/sandbox';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { compileScript } from '../compile/index.ts';
import { journalOf } from '../testing/fake-services.ts';
import { findReplayDifference, type ReplayedScript } from './replay-report.ts';
import { type ReplayEnd, type RunRecording, replayRun } from './replay-run.ts';
import { SimulatedPlace } from './simulated-place.ts';
import { simulateRun } from './simulated-run.ts';
import { draftSimulation } from './simulation-draft.ts';

const SCRIPT = `import { log, now, sleep, volume } from 'hypha';
export const deployment = { name: 'web' };
export default async () => {
  const data = await volume('data', { size: '64MiB' });
  const pair = await Promise.all([volume('b', { size: 1 }), volume('c', { size: 2 })]);
  await sleep('3d');
  log('made', { at: now(), luck: Math.random() });
  return [data, ...pair].map(({ name }) => name);
};
`;

let folder: string;
let pool: SandboxPool;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hypha-replay-'));
  pool = new SandboxPool();
});
afterAll(async () => {
  await pool.close();
  rmSync(folder, { recursive: true });
});

async function compile(name: string, text: string) {
  writeFileSync(join(folder, name), text);
  return await compileScript(join(folder, name));
}

/** A run as its node would have recorded it. */
async function record(text: string, wallMs = 7 * 86_400_000): Promise<RunRecording> {
  const script = await compile('web.ts', text);
  await using place = await SimulatedPlace.open();
  const past = await place.past('default', 'web');
  const given = { input: {}, labels: {}, faults: [], past, nowMs: 1_800_000_000_000 };
  const run = draftSimulation(script, given, { deadline: `${wallMs / 1000}` });
  const cancel = new AbortController().signal;
  const deps = { place, pool, cancel, onEvent: () => undefined, onFault: () => undefined };
  const { events } = await simulateRun(run, deps);
  return { ...run, events };
}

async function replay(
  recording: RunRecording,
  source = recording.payload.script?.source ?? '',
): Promise<{ end: ReplayEnd; script: ReplayedScript; logs: unknown[] }> {
  const calls = new Map<number, GuestCall>();
  const logs: unknown[] = [];
  const end = await replayRun(recording, source, {
    pool,
    watch: {
      onTurn: (turn) => {
        for (const call of turn.calls) calls.set(call.call, call);
        logs.push(...turn.logs);
      },
      onOutcome: async () => undefined,
    },
  });
  return { end, script: { source, calls }, logs };
}

async function differenceOf(recording: RunRecording, changed: string) {
  const before = await replay(recording);
  const { source } = await compile('changed.ts', changed);
  const { end, script } = await replay(recording, source);
  return findReplayDifference(recording, end, script, before.script);
}

function cut(events: readonly JournalEvent[], isKept: (body: JournalBody) => boolean) {
  const [first] = events;
  return journalOf(first?.run ?? '', events.map(({ body }) => body).filter(isKept));
}

test('a run replays to its recorded end, time and randomness included, and no difference is found', async () => {
  const recording = await record(SCRIPT);
  const { end, script, logs } = await replay(recording);
  expect(end).toEqual({ state: 'committed', output: '["data","b","c"]' });
  const recorded = recording.events.flatMap(({ body }) =>
    body.type === 'log' ? [{ message: body.message, fields: body.fields }] : [],
  );
  expect(logs).toEqual(recorded);
  expect(findReplayDifference(recording, end, script, script)).toBeUndefined();
});

test('a call with other arguments is shown with both sides and their places', async () => {
  const recording = await record(SCRIPT);
  const changed = `// One line more\n${SCRIPT.replace("'c', { size: 2 }", "'c', { size: 3 }")}`;
  expect(await differenceOf(recording, changed)).toEqual({
    step: 3,
    recorded: { what: 'volume.ensure c', args: { size: 2 }, at: 'web.ts:5:61' },
    made: { what: 'volume.ensure c', args: { size: 3 }, at: 'changed.ts:6:61' },
  });
});

test('a call that is no longer made, one more, and another output are differences', async () => {
  const recording = await record(SCRIPT);
  expect(await differenceOf(recording, SCRIPT.replace("  await sleep('3d');\n", ''))).toMatchObject(
    {
      step: 4,
      recorded: { what: 'sleep', at: 'web.ts:6:9' },
      made: { what: 'no such call' },
    },
  );
  const more = SCRIPT.replace('  return', "  await volume('d', { size: 4 });\n  return");
  expect(await differenceOf(recording, more)).toMatchObject({
    step: 5,
    recorded: { what: 'returned ["data","b","c"]' },
    made: { what: 'volume.ensure d', at: 'changed.ts:8:9' },
  });
  const other = SCRIPT.replace('name);\n', 'name.toUpperCase());\n');
  expect(await differenceOf(recording, other)).toMatchObject({
    step: null,
    made: { what: 'returned ["DATA","B","C"]' },
  });
});

test('a script that failed fails again at its place, and a corrected one is shown to go on', async () => {
  const broken = SCRIPT.replace('  return', "  throw new Error('no');\n  return");
  const recording = await record(broken);
  const { end, script } = await replay(recording);
  expect(end).toMatchObject({ state: 'failed', problem: { code: 'E_SCRIPT', message: 'no' } });
  expect(findReplayDifference(recording, end, script, script)).toBeUndefined();
  expect(await differenceOf(recording, SCRIPT)).toMatchObject({
    step: null,
    recorded: { what: 'failed with E_SCRIPT: no', at: 'web.ts:8:13' },
    made: { what: 'returned ["data","b","c"]' },
  });
});

test('a run that was stopped from outside replays up to where its record ends', async () => {
  const recording = await record(SCRIPT, 60_000);
  const { end, script } = await replay(recording);
  expect(end).toEqual({ state: 'beyond', step: 4 });
  expect(findReplayDifference(recording, end, script, script)).toBeUndefined();
});

test('a step whose outcome nobody knows is not done again', async () => {
  const whole = await record(SCRIPT);
  const events = cut(
    whole.events,
    (body) =>
      !('step' in body && body.step > 1) &&
      !['step-result', 'log', 'committed', 'finished'].includes(body.type),
  );
  const { end } = await replay({ ...whole, events });
  expect(end).toEqual({ state: 'beyond', step: 1 });
});

test('a run that never began, and one without a script, are refused', async () => {
  const recording = await record(SCRIPT);
  await expect(replay({ ...recording, events: [] })).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
  const { script: _, ...payload } = recording.payload;
  await expect(
    replay({ ...recording, payload: { ...payload, mode: 'destroy' } }),
  ).rejects.toMatchObject({ code: 'E_ARGUMENT' });
});
