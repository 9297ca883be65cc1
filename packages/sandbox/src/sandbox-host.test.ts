import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { GuestDisplaced, type GuestProgram, HyphaError } from '@hypha/protocol';
import { afterEach, expect, test } from 'vitest';
import type { TimeSpent } from './cpu-deadline.ts';
import { confineHosts, type HostCommand, hostCommand } from './host-command.ts';
import { SandboxHost } from './sandbox-host.ts';
import { limitsOf, programOf, seatIn } from './testing/guest-driver.ts';

const hosts: SandboxHost[] = [];
afterEach(async () => {
  await Promise.all(hosts.splice(0).map((host) => host.stop()));
});

const USAGE = { residentBytes: 1, cpuSeconds: 0 };
const READY = { type: 'ready' };

/** A process in the place of a host that answers every line with the given text. */
async function lyingHost(answer: string): Promise<SandboxHost> {
  const program = `
    process.stdout.write(${JSON.stringify(`${JSON.stringify(READY)}\n`)});
    process.stdin.on('data', () => { ${answer} });`;
  const host = await SandboxHost.start({ file: process.execPath, args: ['-e', program] });
  hosts.push(host);
  return host;
}

async function realCommand(): Promise<HostCommand> {
  return hostCommand(process.execPath, await confineHosts(process.execPath), 0);
}

async function startIn(host: SandboxHost, program: GuestProgram): Promise<unknown> {
  const guest = seatIn(host)();
  return await guest.start(program, new AbortController().signal).catch((error: unknown) => error);
}

const say = (answer: unknown) =>
  `process.stdout.write(${JSON.stringify(JSON.stringify(answer))} + '\\n')`;
const turn = (changes: object) => ({
  type: 'turn',
  guest: 1,
  turn: { calls: [], logs: [], end: null, cpuMs: 1, ...changes },
});
const call = { call: 1, verb: 'volume.ensure', name: 'a', args: {} };

test.for([
  ['text that is not JSON', `process.stdout.write('hello\\n')`],
  ['JSON that is no answer', say({ type: 'pwned' })],
  ['a turn with a member too many', say(turn({ extra: 1 }))],
  ['an answer to another question', say({ type: 'closed', guest: 1, ...USAGE })],
  ['that it is ready, again', say(READY)],
  ['an answer for a script that is not in it', say({ ...turn({}), guest: 2 })],
  ['an answer for no script', say({ ...turn({}), guest: 0 })],
  ['calls that are not in order', say(turn({ calls: [{ ...call, call: 2 }] }))],
  ['the same call twice', say(turn({ calls: [call, call] }))],
  ['more calls than the limit', say(turn({ calls: [1, 2, 3].map((n) => ({ ...call, call: n })) }))],
  ['two answers', `${say(turn({}))}; ${say(turn({}))}`],
  ['time that runs backwards', say(turn({ cpuMs: -1 }))],
  [
    'a message without end',
    `const more = () => process.stdout.write('x'.repeat(1e6), more); more()`,
  ],
  ['an exit', `process.exit(3)`],
  ['its death', `process.kill(process.pid, 'SIGSEGV')`],
] as const)('a host that answers with %s is killed, and the guest with it', async ([, answer]) => {
  const host = await lyingHost(answer);
  const error = await startIn(
    host,
    programOf('', { limits: limitsOf({ hostCalls: 1, cpuMs: 20_000 }) }),
  );
  if (answer.includes(';') && error !== undefined && !(error instanceof Error)) {
    // The first of two answers may be taken before the second is seen.
    await expect.poll(() => host.isAlive).toBe(false);
    return;
  }
  expect(error).toBeInstanceOf(HyphaError);
  expect(error).toMatchObject({ code: 'E_SANDBOX' });
  expect(host.isAlive).toBe(false);
});

test('a lie about one script does not make another one suspect', async () => {
  const open = seatIn(await lyingHost(say(turn({ calls: [{ ...call, call: 7 }] }))));
  const { signal } = new AbortController();
  const [liar, other] = await Promise.allSettled(
    [1, 2].map(() => open().start(programOf(''), signal)),
  );
  expect(liar).toMatchObject({ reason: { code: 'E_SANDBOX' } });
  expect(other).toMatchObject({ reason: expect.any(GuestDisplaced) });
});

test('a host that says something when nobody asked is killed', async () => {
  const host = await lyingHost(`${say(turn({}))}; setTimeout(() => ${say(turn({}))}, 20)`);
  await startIn(host, programOf(''));
  await expect.poll(() => host.isAlive).toBe(false);
});

test('a host that computes and does not answer is killed after the budget and the grace', async () => {
  const host = await lyingHost('for (;;);');
  const error = await startIn(host, programOf('', { limits: limitsOf({ cpuMs: 100 }) }));
  expect(error).toMatchObject({ code: 'E_CPU' });
  const { cpuMs } = (error as HyphaError).details as TimeSpent;
  expect(cpuMs).toBeGreaterThanOrEqual(350);
  expect(cpuMs).toBeLessThan(600);
});

test('a host that neither computes nor answers is killed as if the machine had kept it from it', async () => {
  const host = await lyingHost('');
  const error = await startIn(host, programOf('', { limits: limitsOf({ cpuMs: 10 }) }));
  expect(error).toMatchObject({ code: 'E_CPU' });
  const { elapsedMs } = (error as HyphaError).details as TimeSpent;
  expect(elapsedMs).toBeGreaterThanOrEqual(10 * 260);
});

test('a host that reports a fault ends its guest with the code of the fault', async () => {
  const host = await lyingHost(
    say({ type: 'fault', guest: 1, code: 'E_MEMORY', message: 'no memory' }),
  );
  expect(await startIn(host, programOf(''))).toMatchObject({ code: 'E_MEMORY' });
});

test('a command that cannot be run is an error, not a hang', async () => {
  await expect(SandboxHost.start({ file: '/nonexistent', args: [] })).rejects.toMatchObject({
    code: 'E_UNAVAILABLE',
  });
  await expect(
    SandboxHost.start(hostCommand('/nonexistent/node', await confineHosts('/nonexistent/node'), 0)),
  ).rejects.toMatchObject({
    code: 'E_UNAVAILABLE',
  });
});

test('a host has an empty environment and limits of its own', async () => {
  const host = await SandboxHost.start(await realCommand());
  hosts.push(host);
  const read = (file: string) => readFileSync(`/proc/${host.pid}/${file}`, 'utf8');
  expect(read('environ')).toBe('');
  expect(read('limits')).toMatch(/Max open files\s+64\s/);
  expect(read('limits')).toMatch(/Max core file size\s+0\s/);
  expect(read('limits')).toMatch(/Max cpu time\s+1800\s/);
  expect(read('limits')).toMatch(/Max data size\s+3221225472\s/);
});

test('code in a host reads no file but its own, writes none and starts nothing', async () => {
  const probe = `
    const fs = process.getBuiltinModule('node:fs');
    const tries = {
      read: () => fs.readFileSync('/etc/passwd'),
      list: () => fs.readdirSync('/'),
      write: () => fs.writeFileSync('/tmp/hypha-sandbox-probe', 'x'),
      spawn: () => process.getBuiltinModule('node:child_process').spawnSync('/bin/true'),
      worker: () => new (process.getBuiltinModule('node:worker_threads').Worker)('1', { eval: true }),
    };
    for (const [name, run] of Object.entries(tries)) {
      try { run(); console.log(name, 'allowed'); } catch (error) { console.log(name, error.code); }
    }`;
  const { file, args } = await realCommand();
  const { stdout } = await promisify(execFile)(file, [...args.slice(0, -1), '-e', probe]);
  const denied = 'ERR_ACCESS_DENIED';
  expect(stdout.trim().split('\n')).toEqual(
    ['read', 'list', 'write', 'spawn', 'worker'].map((name) => `${name} ${denied}`),
  );
});

test('a host ends when its runner goes away', async () => {
  const host = await SandboxHost.start(await realCommand());
  hosts.push(host);
  host.closeInput();
  await expect.poll(() => host.isAlive).toBe(false);
});
