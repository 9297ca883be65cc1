import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { idle } from './idle.ts';
import type { Row } from './measure.ts';
import { containerStart, volumeClone } from './real-sals.ts';
import { noopRun, runsThroughput } from './runs.ts';

const ROWS: Readonly<Record<string, () => Promise<Row>>> = {
  'noop-run': noopRun,
  'runs-throughput': runsThroughput,
  'container-start': containerStart,
  'volume-clone': volumeClone,
  idle,
};

function show(row: Row): string {
  const { name, floor, ...values } = row;
  const own = Object.entries(values)
    .map(([key, value]) => `${key} ${value}`)
    .join('  ');
  const under = floor === undefined ? '' : `  | ${Object.values(floor).join(' ')}`;
  return `${name.padEnd(16)} ${own}${under}`;
}

const args = process.argv.slice(2);
const jsonAt = args.indexOf('--json');
const jsonFile = jsonAt < 0 ? undefined : args.splice(jsonAt, 2)[1];
const wanted = args.length === 0 ? Object.keys(ROWS) : args;
const unknown = wanted.filter((name) => ROWS[name] === undefined);
if (unknown.length > 0) {
  process.stderr.write(
    `no such row: ${unknown.join(', ')}; there are ${Object.keys(ROWS).join(', ')}\n`,
  );
  process.exit(2);
}
const machine = {
  cpus: cpus().length,
  cpu: cpus()[0]?.model ?? 'unknown',
  memoryMiB: Math.round(totalmem() / 2 ** 20),
  kernel: execFileSync('uname', ['-r'], { encoding: 'utf8' }).trim(),
  node: process.version,
};
const rows: Row[] = [];
for (const name of wanted) {
  const row = await ROWS[name]?.();
  if (row === undefined) continue;
  rows.push(row);
  process.stdout.write(`${show(row)}\n`);
}
if (jsonFile !== undefined)
  writeFileSync(jsonFile, `${JSON.stringify({ machine, rows }, null, 2)}\n`);
process.exit(0);
