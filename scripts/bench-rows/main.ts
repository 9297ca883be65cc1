import { writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import { idle } from './idle.ts';
import type { Budget, Row } from './measure.ts';
import { containerStart, volumeClone } from './real-sals.ts';
import { recovery } from './recovery.ts';
import { runnerMemory, sandboxMemory } from './run-memory.ts';
import { noopRun, runsThroughput } from './runs.ts';
import { step, steps64 } from './steps.ts';
import { verifyRow } from './verify.ts';

const BUDGETS: ReadonlyMap<string, Budget> = new Map([
  ['noop-run', noopRun],
  ['step', step],
  ['steps-64', steps64],
  ['runs-throughput', runsThroughput],
  ['recovery', recovery],
  ['runner-memory', runnerMemory],
  ['sandbox-memory', sandboxMemory],
  ['verify', verifyRow],
  ['container-start', containerStart],
  ['volume-clone', volumeClone],
  ['idle', idle],
]);
const USAGE = `usage: scripts/bench [row…] [--json FILE]\nrows:  ${[...BUDGETS.keys()].join(' ')}\n`;
const EXIT = { ok: 0, failed: 1, usage: 2 } as const;
/** Exit codes of a process that ended by a signal, as shells have them. */
const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

function readArguments(): { names: readonly string[]; json: string | undefined } {
  try {
    const options = { json: { type: 'string' } } as const;
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    const unknown = positionals.find((name) => !BUDGETS.has(name));
    if (unknown !== undefined) throw new Error(`no such row: ${unknown}`);
    const names = positionals.length === 0 ? [...BUDGETS.keys()] : positionals;
    // Proves now, not after minutes, that the file can be written.
    if (values.json !== undefined) writeRows(values.json, []);
    return { names: [...new Set(names)], json: values.json };
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n${USAGE}`);
    process.exit(EXIT.usage);
  }
}

function writeRows(file: string, rows: readonly Row[]): void {
  const machine = {
    cpus: cpus().length,
    cpu: cpus()[0]?.model ?? 'unknown',
    memoryMiB: Math.round(totalmem() / 2 ** 20),
    kernel: release(),
    node: process.version,
  };
  writeFileSync(file, `${JSON.stringify({ machine, rows }, null, 2)}\n`);
}

function describe(row: Row, { goal, isMet }: Budget): string {
  const { name, floor, ...values } = row;
  const show = (fields: object) =>
    Object.entries(fields)
      .map(([key, value]) => `${key} ${value}`)
      .join('  ');
  const { name: floorName = 'none', ...floorValues } = floor ?? {};
  return [
    `${name.padEnd(16)} ${show(values)}`,
    `${' '.repeat(16)} floor ${floorName} ${show(floorValues)}`.trimEnd(),
    `${' '.repeat(16)} goal ${goal}: ${isMet(row) ? 'met' : 'MISSED'}`,
  ].join('\n');
}

/** Rejects at the first signal. Later ones change nothing: taking everything away has begun. */
function interruption(): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => undefined);
  for (const name of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (process.exitCode === undefined) process.stderr.write('taking everything away\n');
      process.exitCode ??= SIGNALS[name];
      reject(new Error(name));
    });
  }
  return promise;
}

async function measure(budget: Budget, interrupted: Promise<never>): Promise<Row> {
  await using own = new AsyncDisposableStack();
  return await Promise.race([budget.measure(own), interrupted]);
}

const { names, json } = readArguments();
const interrupted = interruption();
const rows: Row[] = [];
const count = { failed: 0, skipped: 0, missed: 0 };
for (const [name, budget] of BUDGETS) {
  if (!names.includes(name) || process.exitCode !== undefined) continue;
  const lack = budget.lack?.();
  if (lack !== undefined) {
    count.skipped++;
    process.stdout.write(`${name.padEnd(16)} skipped: ${lack}\n`);
    continue;
  }
  try {
    const row = await measure(budget, interrupted);
    rows.push(row);
    if (!budget.isMet(row)) count.missed++;
    process.stdout.write(`${describe(row, budget)}\n`);
    if (json !== undefined) writeRows(json, rows);
  } catch (error) {
    if (process.exitCode !== undefined) break;
    count.failed++;
    process.stdout.write(`${name.padEnd(16)} FAILED\n`);
    process.stderr.write(`${error instanceof Error ? error.stack : error}\n`);
  }
}
const { failed, skipped, missed } = count;
process.stdout.write(
  `${rows.length} measured (${missed} above budget), ${failed} failed, ${skipped} skipped\n`,
);
process.exit(process.exitCode ?? (failed > 0 ? EXIT.failed : EXIT.ok));
