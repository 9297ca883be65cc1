import { readFileSync } from 'node:fs';
import { GuestDisplaced, HyphaError, type Json } from '@hypha/protocol';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TimeSpent } from './cpu-deadline.ts';
import { confineHosts, hostCommand } from './host-command.ts';
import type { SandboxGuest } from './sandbox-guest.ts';
import { SandboxHost } from './sandbox-host.ts';
import { SandboxPool } from './sandbox-pool.ts';
import {
  done,
  endOf,
  hostPids,
  limitsOf,
  programOf,
  requestOf,
  script,
  seatIn,
} from './testing/guest-driver.ts';
import { asMain, HOSTILE_SCRIPTS } from './testing/hostile-scripts.ts';

const MIB = 1024 * 1024;
const CPU_MS = 300;
/** The kill comes 250 ms after the budget; the rest is what it takes to notice. */
const OVER_MS_MAX = 500;
/** Above the script's own limit and a host without scripts. */
const OVER_BYTES_MAX = 100 * MIB;
const LOOK_MS = 10;

const pool = new SandboxPool();
const never = new AbortController().signal;
let idleBytes = 0;

beforeAll(async () => {
  await endOf(pool, programOf('export default () => 1;'));
  idleBytes = peakBytes();
});
afterAll(async () => {
  process.stdout.write(`hostile scripts: ${HOSTILE_SCRIPTS.length} cases\n`);
  await pool.close();
});

/** The most memory that one of these processes, the hosts of this one, has ever held, bytes. */
function peakBytes(pids = hostPids()): number {
  const peaks = pids.map((pid) => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
    } catch {
      return 0;
    }
  });
  return Math.max(0, ...peaks);
}

/** How a script ended, by code, and after how much CPU time: a busy machine must not fail these tests. */
async function endCode(source: string, changes = {}): Promise<{ code: Json; cpuMs: number }> {
  const limits = limitsOf({ cpuMs: CPU_MS, ...changes });
  const guest = await pool.openGuest(requestOf());
  try {
    const { end, cpuMs } = await guest.start(programOf(source, { limits }), never);
    return { code: end === null ? 'waiting' : end.ok ? 'ok' : end.failure.code, cpuMs };
  } catch (error) {
    if (!(error instanceof HyphaError)) throw error;
    const spent = error.details as TimeSpent | undefined;
    return { code: error.code, cpuMs: spent?.cpuMs ?? 0 };
  } finally {
    await guest.close();
  }
}

async function expectCleanGuest(): Promise<void> {
  const probe = `export default () => [Object.keys(globalThis), [].polluted, [1, 2].map(String)];`;
  expect(await endOf(pool, programOf(probe))).toEqual([[], null, ['1', '2']]);
}

/** A script in the middle of its work, most likely in the host that the next one gets. */
async function openBystander(): Promise<SandboxGuest> {
  const guest = await pool.openGuest(requestOf());
  await guest.start(programOf(script(`await volume('a', {}); return 7;`)), never);
  return guest;
}

async function expectUnharmed(bystander: SandboxGuest): Promise<void> {
  try {
    const { end } = await bystander.deliver(done(1, {}), never);
    expect(end).toEqual({ ok: true, output: '7' });
  } catch (error) {
    if (!(error instanceof GuestDisplaced)) throw error;
  } finally {
    await bystander.close();
  }
}

test.for(HOSTILE_SCRIPTS.map((each) => [each.name, each] as const))(
  '%s ends in time and within its memory, and harms nobody',
  { timeout: 40_000 },
  async ([, { source, ends, cpuMs: cpuMsMax = CPU_MS, memoryMiB = 32 }]) => {
    const bystander = await openBystander();
    let peak = 0;
    const watch = setInterval(() => {
      peak = Math.max(peak, peakBytes());
    }, LOOK_MS);
    const limits = { cpuMs: cpuMsMax, memoryBytes: memoryMiB * MIB };
    const { code, cpuMs } = await endCode(source, limits).finally(() => clearInterval(watch));
    peak = Math.max(peak, peakBytes());
    expect(ends).toContain(code);
    expect(cpuMs).toBeLessThan(cpuMsMax + OVER_MS_MAX);
    expect(peak - idleBytes).toBeLessThan(limits.memoryBytes + OVER_BYTES_MAX);
    await expectUnharmed(bystander);
    await expectCleanGuest();
  },
);

test('memory is capped in the process, not only counted in the guest', async () => {
  const host = await SandboxHost.start(
    hostCommand(process.execPath, await confineHosts(process.execPath), 0),
  );
  try {
    const body = `const a = []; try { for (;;) a.push('x'.repeat(1e6) + a.length); } catch {} return 1;`;
    const limits = limitsOf({ cpuMs: 5_000, memoryBytes: 64 * 1024 * 1024 });
    const before = peakBytes([host.pid ?? 0]);
    const guest = seatIn(host)();
    const { end } = await guest.start(programOf(asMain(body), { limits }), never);
    expect(end).toEqual({ ok: true, output: '1' });
    expect(peakBytes([host.pid ?? 0]) - before).toBeLessThan(1.5 * limits.memoryBytes);
  } finally {
    await host.stop();
  }
});

test('log lines and returned value share one limit', async () => {
  const source = script(`log('x'.repeat(40_000)); return 'x'.repeat(40_000);`);
  expect((await endCode(source)).code).toBe('E_OUTPUT');
});

test.for([
  // In a loop without calls the engine knows the function, or what it last waited for, not the line.
  ['E_CPU', `export default () => {\n  spin();\n};\nfunction spin() {\n  for (;;);\n}\n`, 4],
  ['E_CPU', `export default async () => {\n  await null;\n  for (;;);\n};\n`, 2],
  ['E_OUTPUT', script(`for (;;) log('x');`), 3],
  ['E_HOST_CALLS', script(`for (;;) void volume('a', {});`), 3],
] as const)('a script that is ended with %s shows where it was', async ([code, source, line]) => {
  expect(await endOf(pool, programOf(source))).toMatchObject({ code, place: { line } });
});

test('what a guest leaves behind is gone for the next one', async () => {
  const source = asMain(
    `globalThis.left = 1; Array.prototype.polluted = 1; Object.freeze(Array.prototype); return 1;`,
  );
  expect((await endCode(source)).code).toBe('ok');
  await expectCleanGuest();
});
