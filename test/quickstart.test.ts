/** `scripts/quickstart`, as a person runs it: real SALs where this machine can, simulated ones elsewhere. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { waitFor } from '@hypha/testkit';
import { afterEach, expect, test } from 'vitest';
import { root } from './fixtures/fleet.ts';
import { lackForRealSals } from './fixtures/real-sals.ts';

const RUN_MS_MAX = 240_000;
const isReal = lackForRealSals() === undefined;

interface Quickstart {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  output(): string;
}

const started: Quickstart[] = [];
afterEach(async () => {
  for (const { child, ended } of started.splice(0)) {
    if (child.exitCode === null) signalGroup(child, 'SIGTERM');
    await ended;
  }
});

/** In a process group of its own, as a terminal starts it. */
function startQuickstart(): Quickstart {
  const child = spawn(join(root, 'scripts/quickstart'), {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const ended = once(child, 'close').then(() => child.exitCode);
  const quickstart = { child, ended, output: () => output };
  started.push(quickstart);
  return quickstart;
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid !== undefined) process.kill(-pid, signal);
}

/** The folder it kept its state in, from what it printed. */
function stateOf({ output }: Quickstart): string {
  const name = /\.hypha\/(quickstart-\w{6})/.exec(output())?.[1];
  if (name === undefined) throw new Error(`no state folder in:\n${output()}`);
  return join(root, '.hypha', name);
}

/** What names the folder: itself, mounts below it, and processes with it in their command line. */
function tracesOf(state: string): string[] {
  const mounts = existsSync('/proc/self/mounts') ? readFileSync('/proc/self/mounts', 'utf8') : '';
  const inMounts = state.replaceAll(' ', '\\040');
  const processes = existsSync('/proc')
    ? readdirSync('/proc').filter((id) => /^\d+$/.test(id))
    : [];
  return [
    ...(existsSync(state) ? [state] : []),
    ...mounts.split('\n').filter((line) => line.includes(inMounts)),
    ...processes.map(commandLine).filter((line) => line.includes(state)),
  ];
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

test(
  'it deploys a page, proves it, refuses a changed byte and leaves nothing',
  async () => {
    const quickstart = startQuickstart();
    const code = await quickstart.ended;
    const output = quickstart.output();
    expect(output).toContain('receipt verified');
    expect(output).not.toContain('NOT verified');
    expect(output).toContain('E_SIG_INVALID');
    if (isReal) {
      expect(output).toMatch(/answers 200:\n[\s\S]*<h1>Hello from edge-1<\/h1>/);
      expect(output).not.toContain('(simulated)');
    } else {
      expect(output).toContain('edge-1 (container, volume simulated)');
      expect(output).toContain('succeeded (simulated)');
      expect(output).toContain('simulated, so there is no page to fetch');
    }
    expect(output).toMatch(/stopped; nothing is left running\n$/);
    expect(code).toBe(0);
    expect(tracesOf(stateOf(quickstart))).toEqual([]);
  },
  RUN_MS_MAX,
);

test.for(['Adding this machine', 'step   2'])(
  'Ctrl-C at "%s" takes everything away',
  { timeout: RUN_MS_MAX },
  async (moment) => {
    const quickstart = startQuickstart();
    await waitFor(() => quickstart.output().includes(moment), {
      timeoutMs: RUN_MS_MAX / 2,
      what: moment,
    });
    const state = stateOf(quickstart);
    signalGroup(quickstart.child, 'SIGINT');
    expect(await quickstart.ended).toBe(130);
    expect(tracesOf(state)).toEqual([]);
  },
);
