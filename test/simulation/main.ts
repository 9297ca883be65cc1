import { parseArgs } from 'node:util';
import { simulate } from './simulate.ts';

const USAGE = 'usage: scripts/simulate [--seeds N] [--seed S]\n';
const EXIT = { ok: 0, failed: 1, usage: 2 } as const;
const SEEDS_DEFAULT = 2000;

interface Wanted {
  readonly from: number;
  readonly count: number;
  /** Show what happened, not only what was wrong. */
  readonly isTold: boolean;
}

function readArguments(): Wanted {
  try {
    const options = { seeds: { type: 'string' }, seed: { type: 'string' } } as const;
    const { values } = parseArgs({ options });
    const isTold = values.seed !== undefined && values.seeds === undefined;
    const from = Number(values.seed ?? Math.floor(Math.random() * 2 ** 30));
    const count = isTold ? 1 : Number(values.seeds ?? SEEDS_DEFAULT);
    if (!Number.isInteger(from) || from < 0) throw new Error('--seed is a number from 0');
    if (!Number.isInteger(count) || count < 1) throw new Error('--seeds is a number from 1');
    return { from, count, isTold };
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n${USAGE}`);
    process.exit(EXIT.usage);
  }
}

const { from, count, isTold } = readArguments();
const total = { runs: 0, faults: 0, violations: 0 };
for (let seed = from; seed < from + count; seed++) {
  const { runs, faults, violations, trace } = await simulate(seed);
  total.runs += runs;
  total.faults += faults;
  total.violations += violations.length;
  if (isTold) process.stdout.write(trace.map((line) => `${line}\n`).join(''));
  for (const line of violations) process.stdout.write(`seed ${seed}: ${line}\n`);
}
process.stdout.write(`${total.runs} runs, ${total.faults} faults, first seed ${from}\n`);
process.stdout.write(`${count} seeds, ${total.violations} violations\n`);
process.exit(total.violations === 0 ? EXIT.ok : EXIT.failed);
