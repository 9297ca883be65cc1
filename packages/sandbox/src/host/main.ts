/**
 * The sandbox host: a process that can do nothing but compute. Scripts of one realm are in it at once, each in
 * an instance of the engine of its own, and compute one at a time. It speaks lines of JSON over stdin and
 * stdout with the runner that started it, trusts that runner and is trusted by nobody. Ends at end of file and
 * after any fault.
 */
import type { z } from 'zod';
import { compileQuickJs } from '../guest/quickjs-engine.ts';
import { GuestFault, type ScriptGuest } from '../guest/script-engine.ts';
import { SANDBOX_LIMITS } from '../limits.ts';
import type { HostAnswer, HostReady, HostRequest } from './host-message.ts';
import { LineReader } from './line-reader.ts';

process.title = 'hypha-sandbox';

const engine = await compileQuickJs();
const guests = new Map<number, ScriptGuest>();
let memoryBytes: number = SANDBOX_LIMITS.readMemoryBytes;
/** Made ahead, so that a script does not wait for it. */
let next: ScriptGuest | undefined = await warmUp();
let garbageBytes = 0;

/** The first script an engine runs is slow: better this one than an operator's. */
async function warmUp(): Promise<ScriptGuest> {
  const limits = { cpuMs: 10_000, memoryBytes, outputBytes: 1024, hostCalls: 1 };
  const node = { id: '', name: '', labels: {} };
  const source = "import { volume } from 'hypha'; export default () => volume('a', {});";
  const first = await engine.open(memoryBytes);
  first.start({ source, input: {}, seed: '0'.repeat(64), nowMs: 0, node, limits });
  first.deliver({ call: 1, ok: true, value: {}, nowMs: 0 });
  return await engine.open(memoryBytes);
}

async function answer(request: HostRequest): Promise<HostAnswer> {
  const { guest } = request;
  switch (request.type) {
    case 'start': {
      const opened = await openGuest(guest, request.program.limits.memoryBytes);
      return { type: 'turn', guest, turn: opened.start(request.program) };
    }
    case 'deliver': {
      return { type: 'turn', guest, turn: findGuest(guest).deliver(request.outcome) };
    }
    case 'read-export': {
      const opened = await openGuest(guest, request.program.limits.memoryBytes);
      const read = opened.readExport(request.program, request.name);
      return 'failure' in read
        ? { type: 'export-failure', guest, failure: read.failure }
        : { type: 'export', guest, text: read.text };
    }
    case 'close': {
      garbageBytes += guests.get(guest)?.memoryBytes ?? 0;
      guests.delete(guest);
      return { type: 'closed', guest, ...usage() };
    }
  }
}

async function openGuest(guest: number, bytes: number): Promise<ScriptGuest> {
  const made = bytes === memoryBytes ? next : undefined;
  next = undefined;
  memoryBytes = bytes;
  const opened = made ?? (await engine.open(bytes));
  guests.set(guest, opened);
  return opened;
}

function findGuest(guest: number): ScriptGuest {
  const found = guests.get(guest);
  if (found === undefined) throw new GuestFault('E_INTERNAL', 'there is no such script');
  return found;
}

function usage() {
  const { user, system } = process.cpuUsage();
  return { residentBytes: process.memoryUsage.rss(), cpuSeconds: (user + system) / 1e6 };
}

function write(message: HostAnswer | z.infer<typeof HostReady>): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

async function serve(line: string): Promise<void> {
  // From our own runner, which wrote it from values it had checked.
  const request = JSON.parse(line) as HostRequest;
  try {
    write(await answer(request));
  } catch (error) {
    const fault = error instanceof GuestFault ? error : undefined;
    const isMemory = fault?.code === 'E_MEMORY';
    const code = isMemory ? 'E_MEMORY' : fault?.code === 'E_INTERNAL' ? 'E_INTERNAL' : 'E_SANDBOX';
    const message = fault?.message ?? 'the sandbox host failed';
    write({ type: 'fault', guest: request.guest, code, message });
    process.exit(70);
  }
  if (lines.length === 0) await tidy();
}

/** When nobody waits for an answer. */
async function tidy(): Promise<void> {
  if (garbageBytes > SANDBOX_LIMITS.garbageBytesMax) {
    garbageBytes = 0;
    // Memory of an instance is returned when it is collected, and V8 sees no hurry in it.
    globalThis.gc?.();
  }
  // Without memory for it, the script that needs it will say so.
  next ??= await engine.open(memoryBytes).catch(() => undefined);
}

async function serveAll(): Promise<void> {
  isServing = true;
  for (let line = lines.shift(); line !== undefined; line = lines.shift()) await serve(line);
  isServing = false;
}

const lines: string[] = [];
let isServing = false;
const reader = new LineReader(SANDBOX_LIMITS.requestBytesMax);
process.stdin.on('data', (chunk: Buffer) => {
  lines.push(...reader.push(chunk));
  if (!isServing) void serveAll();
});
process.stdin.on('end', () => process.exit(0));
write({ type: 'ready' });
