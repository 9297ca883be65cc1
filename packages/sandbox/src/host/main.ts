/**
 * The sandbox host: a process that can do nothing but compute. It runs one script at a time, each in a
 * fresh instance of the engine, and speaks lines of JSON over stdin and stdout with the runner that
 * started it. It trusts its runner and is trusted by nobody. Ends at end of file and after any fault.
 */
import { compileQuickJs } from '../guest/quickjs-engine.ts';
import { GuestFault, type ScriptGuest } from '../guest/script-engine.ts';
import { SANDBOX_LIMITS } from '../limits.ts';
import type { HostAnswer, HostRequest } from './host-message.ts';
import { LineReader } from './line-reader.ts';

process.title = 'hypha-sandbox';

const engine = await compileQuickJs();
let guest: ScriptGuest | undefined;
let memoryBytes: number = SANDBOX_LIMITS.readMemoryBytes;
/** Made ahead, so that a script does not wait for it. */
let next: ScriptGuest | undefined = await warmUp();

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
  switch (request.type) {
    case 'start': {
      guest = await openGuest(request.program.limits.memoryBytes);
      return { type: 'turn', turn: guest.start(request.program) };
    }
    case 'deliver': {
      if (guest === undefined) throw new GuestFault('E_INTERNAL', 'there is no script');
      return { type: 'turn', turn: guest.deliver(request.outcome) };
    }
    case 'read-export': {
      guest = await openGuest(request.program.limits.memoryBytes);
      const read = guest.readExport(request.program, request.name);
      return 'failure' in read
        ? { type: 'export-failure', failure: read.failure }
        : { type: 'export', text: read.text };
    }
    case 'reset': {
      guest = undefined;
      next = await engine.open(memoryBytes);
      return ready();
    }
  }
}

async function openGuest(bytes: number): Promise<ScriptGuest> {
  const made = bytes === memoryBytes ? next : undefined;
  next = undefined;
  memoryBytes = bytes;
  return made ?? (await engine.open(bytes));
}

function ready(): HostAnswer {
  const { user, system } = process.cpuUsage();
  const residentBytes = process.memoryUsage.rss();
  return { type: 'ready', residentBytes, cpuSeconds: (user + system) / 1e6 };
}

function write(message: HostAnswer): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

async function serve(line: string): Promise<void> {
  try {
    // From our own runner, which wrote it from values it had checked.
    write(await answer(JSON.parse(line) as HostRequest));
  } catch (error) {
    const fault = error instanceof GuestFault ? error : undefined;
    const isMemory = fault?.code === 'E_MEMORY';
    const code = isMemory ? 'E_MEMORY' : fault?.code === 'E_INTERNAL' ? 'E_INTERNAL' : 'E_SANDBOX';
    write({ type: 'fault', code, message: fault?.message ?? 'the sandbox host failed' });
    process.exit(70);
  }
}

const lines = new LineReader(SANDBOX_LIMITS.requestBytesMax);
let queue = Promise.resolve();
process.stdin.on('data', (chunk: Buffer) => {
  for (const line of lines.push(chunk)) queue = queue.then(() => serve(line));
});
process.stdin.on('end', () => process.exit(0));
write(ready());
