import { GuestDisplaced, HyphaError } from '@hypha/protocol';
import { expect, test } from 'vitest';
import type { SandboxGuest } from './sandbox-guest.ts';
import { SandboxPool } from './sandbox-pool.ts';
import { done, hostPids, limitsOf, programOf, requestOf, script } from './testing/guest-driver.ts';

const never = new AbortController().signal;
const STEP = programOf(script(`await volume('a', {}); return 1;`));
/** Computes in a builtin that no interrupt reaches: only a kill ends it. */
const STUCK = 'export default () => Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1);';
const SPINNING = 'export default () => { for (;;); };';
const within = (source: string, cpuMs: number) =>
  programOf(source, { limits: limitsOf({ cpuMs }) });

class Hosts implements AsyncDisposable {
  readonly pool = new SandboxPool();
  readonly #before = new Set(hostPids());

  get pids(): number[] {
    return hostPids().filter((pid) => !this.#before.has(pid));
  }

  async open(changes: Parameters<typeof requestOf>[0] = {}): Promise<SandboxGuest> {
    return await this.pool.openGuest(requestOf(changes));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.close();
  }
}

test('scripts of one realm are in one host at once, each with a world of its own', async () => {
  await using hosts = new Hosts();
  const source = script(
    `globalThis.mine ??= input.n; await volume('a', {}); return globalThis.mine;`,
  );
  const guests = await Promise.all(Array.from({ length: 16 }, () => hosts.open()));
  const input = (n: number) => programOf(source, { input: { n } });
  await Promise.all(guests.map((guest, n) => guest.start(input(n), never)));
  const turns = await Promise.all(guests.map((guest) => guest.deliver(done(1, {}), never)));
  expect(turns.map(({ end }) => end?.ok && end.output)).toEqual(guests.map((_, n) => `${n}`));
  // One for all of them, and one ahead for the next.
  expect(hosts.pids.length).toBeLessThanOrEqual(2);
});

test('scripts of different realms are never in one host, nor is one after the other', async () => {
  await using hosts = new Hosts();
  const one = await hosts.open({ realm: 'a' });
  const [ofA] = hosts.pids;
  await one.start(STEP, never);
  await one.close();
  const two = await hosts.open({ realm: 'b' });
  await two.start(STEP, never);
  const back = await hosts.open({ realm: 'a' });
  await back.start(STEP, never);
  expect(hosts.pids.length).toBe(2);
  process.kill(ofA ?? 0, 'SIGKILL');
  await expect(back.deliver(done(1, {}), never)).rejects.toThrow();
  expect((await two.deliver(done(1, {}), never)).end).toEqual({ ok: true, output: '1' });
});

test('a host killed in a turn costs that script its guest and moves all others', async () => {
  await using hosts = new Hosts();
  const [stuck, idle, waiting] = await Promise.all([hosts.open(), hosts.open(), hosts.open()]);
  await idle.start(STEP, never);
  const outcomes = await Promise.allSettled([
    stuck.start(within(STUCK, 50), never),
    waiting.start(STEP, never),
  ]);
  expect(outcomes[0]).toMatchObject({ reason: { code: 'E_CPU' } });
  expect(outcomes[1]).toMatchObject({ reason: expect.any(GuestDisplaced) });
  await expect(idle.deliver(done(1, {}), never)).rejects.toBeInstanceOf(GuestDisplaced);
  await Promise.all([stuck, idle, waiting].map((guest) => guest.close()));
  const next = await hosts.open();
  expect((await next.start(STEP, never)).calls).toHaveLength(1);
});

test('a host that dies in nobody’s turn moves everybody', async () => {
  await using hosts = new Hosts();
  const guests = await Promise.all([hosts.open(), hosts.open()]);
  const [pid] = hosts.pids;
  for (const guest of guests) await guest.start(STEP, never);
  process.kill(pid ?? 0, 'SIGKILL');
  // Known to be dead once it is replaced.
  await expect.poll(() => hosts.pids.some((each) => each !== pid), { timeout: 10_000 }).toBe(true);
  for (const guest of guests) {
    await expect(guest.deliver(done(1, {}), never)).rejects.toBeInstanceOf(GuestDisplaced);
  }
});

test('a suspected script gets a host that nobody was in and nobody joins', async () => {
  await using hosts = new Hosts();
  const other = await hosts.open();
  await other.start(STEP, never);
  const suspect = await hosts.open({ alone: true });
  const later = await Promise.all([hosts.open(), hosts.open({ alone: true })]);
  for (const guest of later) await guest.start(STEP, never);
  await expect(suspect.start(within(STUCK, 50), never)).rejects.toMatchObject({ code: 'E_CPU' });
  for (const guest of [other, ...later]) {
    expect((await guest.deliver(done(1, {}), never)).end).toEqual({ ok: true, output: '1' });
  }
});

test('waiting for the turn of another does not count against a script', async () => {
  await using hosts = new Hosts();
  const [busy, modest] = await Promise.all([hosts.open(), hosts.open()]);
  const [first, second] = await Promise.all([
    busy.start(within(SPINNING, 900), never),
    modest.start(within(STEP.source, 30), never),
  ]);
  expect(first.end).toMatchObject({ failure: { code: 'E_CPU' } });
  expect(second.calls).toHaveLength(1);
});

test('turns are taken in the order they were asked for', async () => {
  await using hosts = new Hosts();
  const guests = await Promise.all(Array.from({ length: 5 }, () => hosts.open()));
  for (const guest of guests) await guest.start(STEP, never);
  const order: number[] = [];
  const asked = [3, 0, 4, 1, 2];
  await Promise.all(
    asked.map(async (n) => {
      await guests[n]?.deliver(done(1, {}), never);
      order.push(n);
    }),
  );
  expect(order).toEqual(asked);
});

test('a script that is given up while it waits or computes harms nobody in its host', async () => {
  await using hosts = new Hosts();
  const [other, computing, waiting] = await Promise.all([hosts.open(), hosts.open(), hosts.open()]);
  await other.start(STEP, never);
  const [pid] = hosts.pids;
  const reason = new HyphaError('E_CANCELLED', 'enough');
  const cancel = new AbortController();
  const turns = [
    computing.start(within(SPINNING, 300), cancel.signal),
    waiting.start(STEP, cancel.signal),
  ].map((turn) => expect(turn).rejects.toBe(reason));
  cancel.abort(reason);
  await Promise.all(turns);
  await Promise.all([computing.close(), waiting.close()]);
  expect((await other.deliver(done(1, {}), never)).end).toEqual({ ok: true, output: '1' });
  expect(hosts.pids).toContain(pid);
});
