/** The engine with the guest it has in production: the same crashes as with the scripted one. */
import { readFileSync } from 'node:fs';
import { RunLimits } from '@hypha/protocol';
import { SandboxPool } from '@hypha/sandbox';
import { afterAll, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';

const pool = new SandboxPool();
afterAll(async () => {
  await pool.close();
});

const SOURCE = `import { log, now, volume } from 'hypha';
export default async function deploy(input) {
  const begunAt = now();
  const first = await volume('a', { size: 3 });
  const rest = await Promise.all([
    volume('b', { size: 2, inside: first }),
    volume('c', { busy: input.busy }),
  ]);
  log('made', { names: rest.map(({ name }) => name), luck: Math.random(), went: now() >= begunAt });
  if (input.fails) throw new Error('no more');
  try {
    await volume('-d', {});
  } catch (error) {
    log(error.code);
  }
  return { names: [first, ...rest].map(({ name }) => name), luck: Math.random() };
}`;

function rigFor(
  input: { busy: number; fails: boolean },
  source = SOURCE,
  limits: Partial<RunLimits> = {},
): SagaRig {
  const script = { engine: 'quickjs-es2023', sha256: '0'.repeat(64), source } as const;
  const never = async () => Promise.reject(new Error('the sandbox has its own script'));
  const rig = new SagaRig(never, {
    ...{ caps: ['volume'], script, input },
    limits: RunLimits.parse(limits),
  });
  rig.openGuest = () => {
    const { alone = false } = rig.guestRequests.at(-1) ?? {};
    return pool.openGuest({ run: 'run', realm: 'default', alone });
  };
  return rig;
}

/** All but durations, times of day and the order of what happens at once. */
function endOf(rig: SagaRig, outcome: unknown) {
  return {
    outcome,
    world: rig.world.snapshot(),
    effects: rig.world.effects.toSorted(),
    violations: rig.world.violations,
    intents: rig.bodiesOf('step-intent').toSorted((left, right) => left.step - right.step),
    logs: rig.bodiesOf('log'),
    finished: rig.bodiesOf('finished'),
  };
}

test.each([
  { busy: 2, fails: false },
  { busy: 0, fails: true },
])(
  'ends the same after a crash at any point, with input %j',
  { timeout: 180_000 },
  async (input) => {
    const calm = rigFor(input);
    const { outcome, points } = await calm.runWithCrashes([]);
    const expected = endOf(calm, outcome);
    expect(outcome).toMatchObject(
      input.fails
        ? { state: 'failed', problem: { code: 'E_SCRIPT', detail: 'no more', where: { line: 10 } } }
        : {
            state: 'committed',
            output: expect.stringMatching(/^\{"names":\["a","b","c"\],"luck":0\./),
          },
    );
    expect(Object.keys(calm.world.snapshot())).toEqual(input.fails ? [] : ['a', 'b', 'c']);
    for (const [index, point] of points.entries()) {
      const rig = rigFor(input);
      const resumed = await rig.runWithCrashes([index + 1]);
      expect(endOf(rig, resumed.outcome), `crash at ${point}`).toEqual(expected);
    }
    process.stdout.write(`real sandbox: ${points.length} crash points\n`);
  },
);

test('takes a script that eats its CPU budget for one that fails, and undoes it', async () => {
  const rig = rigFor({ busy: 0, fails: false });
  const source = `import { volume } from 'hypha';
export default async () => {
  await volume('a', {});
  for (;;);
};`;
  rig.payload.limits.cpuMs = 100;
  if (rig.payload.script !== undefined) rig.payload.script.source = source;
  expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_CPU' } });
  expect(rig.world.snapshot()).toEqual({});
});

test('a wait that is not over in time is its own error, not that of a step before it', async () => {
  const source = `import { volume, waitFor } from 'hypha';
export default async function deploy() {
  await volume('a', { within: 500 }).catch(() => undefined);
  await waitFor('the moon', () => false, { every: '100ms', timeout: '300ms' });
}`;
  const rig = rigFor({ busy: 0, fails: false }, source);
  rig.world.onApply = async ({ signal }) => await rig.clock.sleep(5_000, signal);
  const outcome = await rig.run();
  expect(outcome).toMatchObject({ state: 'failed', problem: { code: 'E_TIMEOUT' } });
  expect(outcome).toHaveProperty('problem.where', { line: 4, column: 16 });
  expect(rig.bodiesOf('step-error')).toMatchObject([{ step: 1, error: { code: 'E_TIMEOUT' } }]);
});

test('a script under which two hosts die in its turn fails, and the third is not tried', {
  timeout: 60_000,
}, async () => {
  // Little of it counts as steps, so that its budget is one of time.
  const source = `const many = new Array(10_000).fill(7);
export default function deploy() { for (;;) many.join(); }`;
  const rig = rigFor({ busy: 0, fails: false }, source, { cpuMs: 8_000 });
  const killed = new Set<number>();
  const watch = setInterval(() => {
    for (const pid of busyChildren()) {
      killed.add(pid);
      process.kill(pid, 'SIGKILL');
    }
  }, 20);
  try {
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_SANDBOX', detail: 'the host of the script died 2 times' },
    });
  } finally {
    clearInterval(watch);
  }
  expect(killed.size).toBe(2);
  expect(rig.guestRequests.map(({ alone }) => alone)).toEqual([false, true]);
});

/** Processes of this one that have computed for longer than a host takes to start. */
function busyChildren(): number[] {
  const children = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8');
  return children
    .split(' ')
    .filter((pid) => pid !== '')
    .map(Number)
    .filter((pid) => {
      try {
        return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[0]) > 1e9;
      } catch {
        return false;
      }
    });
}
