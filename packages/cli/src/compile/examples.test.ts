import { fileURLToPath } from 'node:url';
import type { GuestOutcome, GuestTurn, Json } from '@hypha/protocol';
import { ContainerSpec, ExecArgs, SnapshotArgs, VolumeSpec } from '@hypha/sal';
import { SandboxPool } from '@hypha/sandbox';
import { afterAll, expect, test } from 'vitest';
import { z } from 'zod';
import { compileScript } from './compile-script.ts';
import { parseInput } from './script-input.ts';

const pool = new SandboxPool();
afterAll(() => pool.close());

const RID = 'a'.repeat(26);
const NoArgs = z.strictObject({});
const ARGS = {
  'volume.ensure': VolumeSpec,
  'volume.snapshot': SnapshotArgs,
  'container.ensure': ContainerSpec,
  'container.exec': ExecArgs,
  'volume.get': NoArgs,
  'container.get': NoArgs,
  waitFor: z.strictObject({ label: z.string(), every: z.string(), timeout: z.string() }),
} as const;

/** Runs an example against outcomes of its calls; every call's arguments must fit the SAL's schema. */
async function runExample(
  name: string,
  changes: Readonly<Record<string, Json>> = {},
): Promise<{ name: string | undefined; calls: string[]; caps: readonly string[]; output: Json }> {
  const file = fileURLToPath(new URL(`../../../../examples/${name}`, import.meta.url));
  const { source, deployment, caps } = await compileScript(file);
  const guest = await pool.openGuest({ run: 'run', realm: 'default', alone: false });
  const { signal } = new AbortController();
  const calls: string[] = [];
  try {
    let turn: GuestTurn = await guest.start(
      {
        source,
        input: parseInput(deployment.input, []),
        seed: '0'.repeat(64),
        nowMs: 0,
        node: { id: 'n', name: 'edge-1', labels: {} },
        limits: { cpuMs: 2000, memoryBytes: 64 * 2 ** 20, outputBytes: 65_536, hostCalls: 100 },
      },
      signal,
    );
    const waiting = [...turn.calls];
    while (turn.end === null) {
      const call = waiting.shift();
      if (call === undefined) throw new Error('the example waits for nothing');
      calls.push(call.name === null ? call.verb : `${call.verb} ${call.name}`);
      ARGS[call.verb as keyof typeof ARGS].parse(withVersions(call.args));
      turn = await guest.deliver(outcomeOf(call.call, call.verb, call.name ?? '', changes), signal);
      waiting.push(...turn.calls);
    }
    if (!turn.end.ok) throw new Error(turn.end.failure.message);
    return { name: deployment.name, calls, caps, output: JSON.parse(turn.end.output) as Json };
  } finally {
    await guest.close();
  }
}

/** Handles of secrets as the engine hands them on. */
function withVersions(args: Json): unknown {
  const text = JSON.stringify(args);
  const version = 'a'.repeat(32);
  return JSON.parse(
    text.replaceAll(/\{"\$secret":("[^"]+")\}/g, `{"secret":$1,"version":"${version}"}`),
  );
}

function outcomeOf(
  call: number,
  verb: string,
  name: string,
  changes: Readonly<Record<string, Json>>,
): GuestOutcome {
  const kind = verb.split('.')[0] ?? '';
  const made = { $rid: RID, kind, name, simulated: true };
  const values: Readonly<Record<string, Json>> = {
    'volume.ensure': { ...made, sizeBytes: 64 * 2 ** 20 },
    'volume.snapshot': { volume: RID, name, simulated: true },
    'container.ensure': { ...made, address: 'fd00::7' },
    'volume.get': { ...made, sizeBytes: 64 * 2 ** 20 },
    'container.get': { ...made, address: 'fd00::7' },
    waitFor: { everyMs: 10_000, untilMs: 7_200_000 },
    'container.exec': { exitCode: 0, stdout: '', stderr: '', simulated: true },
    ...changes,
  };
  return { call, ok: true, value: values[verb] ?? null, nowMs: 0 };
}

test('examples/web.ts declares a volume and a container and returns where the page is', async () => {
  expect(await runExample('web.ts')).toEqual({
    name: 'web',
    caps: ['container', 'volume'],
    calls: ['volume.ensure data', 'container.ensure web'],
    output: { url: 'http://[fd00::7]/', starts: 'http://[fd00::7]/data/starts' },
  });
});

test('examples/staging.ts tries something on a clone of what is live', async () => {
  expect(await runExample('staging.ts')).toEqual({
    name: 'staging',
    caps: ['container', 'volume'],
    calls: [
      'volume.ensure live',
      'volume.snapshot live',
      'volume.ensure staging',
      'container.ensure web',
      'container.exec web',
    ],
    output: { url: 'http://[fd00::7]/notes' },
  });
});

test('examples/guarded.ts hands a secret to its container and knows nothing of it', async () => {
  expect(await runExample('guarded.ts')).toEqual({
    name: 'guarded',
    caps: ['container'],
    calls: ['container.ensure web'],
    output: { url: 'http://[fd00::7]/' },
  });
});

test('examples/backup.ts waits until nobody holds the volume and takes a snapshot of it', async () => {
  const absent = { exitCode: 1, stdout: '', stderr: '', simulated: true };
  expect(await runExample('backup.ts', { 'container.exec': absent })).toEqual({
    name: 'web',
    caps: ['container', 'volume'],
    calls: [
      'volume.get data',
      'container.get web',
      'waitFor',
      'container.exec web',
      'volume.snapshot data',
    ],
    output: { snapshot: 'at-0' },
  });
});
