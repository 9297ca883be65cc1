import { fileURLToPath } from 'node:url';
import type { GuestOutcome, GuestTurn, Json } from '@hypha/protocol';
import { ContainerSpec, ExecArgs, SnapshotArgs, VolumeSpec } from '@hypha/sal';
import { SandboxPool } from '@hypha/sandbox';
import { afterAll, expect, test } from 'vitest';
import { compileScript } from './compile-script.ts';
import { parseInput } from './script-input.ts';

const pool = new SandboxPool();
afterAll(() => pool.close());

const RID = 'a'.repeat(26);
const ARGS = {
  'volume.ensure': VolumeSpec,
  'volume.snapshot': SnapshotArgs,
  'container.ensure': ContainerSpec,
  'container.exec': ExecArgs,
} as const;

/** Runs an example against outcomes of its calls; every call's arguments must fit the SAL's schema. */
async function runExample(
  name: string,
): Promise<{ calls: string[]; caps: readonly string[]; output: Json }> {
  const file = fileURLToPath(new URL(`../../../../examples/${name}`, import.meta.url));
  const { source, deployment, caps } = await compileScript(file);
  expect(deployment.name).toBe(name.replace('.ts', ''));
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
    while (turn.end === null) {
      const [call] = turn.calls;
      if (call === undefined) throw new Error('the example waits for nothing');
      calls.push(`${call.verb} ${call.name}`);
      ARGS[call.verb as keyof typeof ARGS].parse(withVersions(call.args));
      turn = await guest.deliver(outcomeOf(call.call, call.verb, call.name ?? ''), signal);
    }
    if (!turn.end.ok) throw new Error(turn.end.failure.message);
    return { calls, caps, output: JSON.parse(turn.end.output) as Json };
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

function outcomeOf(call: number, verb: string, name: string): GuestOutcome {
  const kind = verb.split('.')[0] ?? '';
  const made = { $rid: RID, kind, name, simulated: true };
  const values: Readonly<Record<string, Json>> = {
    'volume.ensure': { ...made, sizeBytes: 64 * 2 ** 20 },
    'volume.snapshot': { volume: RID, name, simulated: true },
    'container.ensure': { ...made, address: 'fd00::7' },
    'container.exec': { exitCode: 0, stdout: '', stderr: '', simulated: true },
  };
  return { call, ok: true, value: values[verb] ?? null, nowMs: 0 };
}

test('examples/web.ts declares a volume and a container and returns where the page is', async () => {
  expect(await runExample('web.ts')).toEqual({
    caps: ['container', 'volume'],
    calls: ['volume.ensure data', 'container.ensure web'],
    output: { url: 'http://[fd00::7]/', starts: 'http://[fd00::7]/data/starts' },
  });
});

test('examples/staging.ts tries something on a clone of what is live', async () => {
  expect(await runExample('staging.ts')).toEqual({
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
    caps: ['container'],
    calls: ['container.ensure web'],
    output: { url: 'http://[fd00::7]/' },
  });
});
