import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { SeededRandom } from '@hypha/testkit';
import { Fleet, root } from '../../test/fixtures/fleet.ts';
import { lackForRealSals } from '../../test/fixtures/real-sals.ts';
import { SignedRuns } from '../../test/fixtures/signed-runs.ts';
import { inspect } from './inspection.ts';
import { Monkey } from './monkey.ts';
import { type ChaosRun, runDeployment } from './workload.ts';

const USAGE = 'usage: scripts/chaos [--runs N] [--seed S]\n';
const EXIT = { ok: 0, failed: 1, usage: 2 } as const;
const RUNS_DEFAULT = 60;
/** Deployments at once: each one's runs follow each other. */
const DEPLOYMENTS_MAX = 6;

function readArguments(): { runs: number; seed: number } {
  try {
    const options = { runs: { type: 'string' }, seed: { type: 'string' } } as const;
    const { values } = parseArgs({ options });
    const runs = Number(values.runs ?? RUNS_DEFAULT);
    const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
    if (!Number.isInteger(runs) || runs < 1) throw new Error('--runs is a number from 1');
    if (!Number.isInteger(seed) || seed < 0) throw new Error('--seed is a number from 0');
    return { runs, seed };
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n${USAGE}`);
    process.exit(EXIT.usage);
  }
}

const { runs: count, seed } = readArguments();
process.stdout.write(`chaos: ${count} runs, seed ${seed}\n`);
const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => interrupted.abort(new Error(name)));
}

/** Numbers of runs that add up to `count`. */
function shares(): number[] {
  const deployments = Math.min(DEPLOYMENTS_MAX, count);
  return Array.from({ length: deployments }, (_, index) =>
    Math.floor((count + index) / deployments),
  );
}

async function unleash(fleet: Fleet, isReal: boolean): Promise<number> {
  const random = new SeededRandom(seed);
  const runs = await SignedRuns.open(fleet);
  const image = isReal ? await makeImage(fleet) : `example.invalid/web@sha256:${'0'.repeat(64)}`;
  const deps = { fleet, runs, image, signal: interrupted.signal };
  const works = shares().map((share, index) => ({
    deployment: `chaos-${index}`,
    count: share,
    random: random.fork(),
  }));
  const monkey = new Monkey(fleet, random.fork());
  const calm = new AbortController();
  const raging = monkey.rage(calm.signal).catch((error: unknown) => interrupted.abort(error));
  let ended: ChaosRun[] = [];
  try {
    ended = (await Promise.all(works.map((work) => runDeployment(deps, work)))).flat();
  } finally {
    calm.abort();
    await raging;
  }
  const violations = await inspect({ fleet, runs, isReal, signal: interrupted.signal }, ended);
  for (const line of violations) process.stdout.write(`violation: ${line}\n`);
  if (violations.length > 0) process.stdout.write(`${fleet.logs()}\n`);
  report(ended, monkey);
  process.stdout.write(
    `${count} runs, ${monkey.kills} kills, ${violations.length} violations, seed ${seed}\n`,
  );
  return violations.length;
}

function report(ended: readonly ChaosRun[], monkey: Monkey): void {
  const states = new Map<string, number>();
  for (const { end } of ended) {
    const state =
      end === null ? 'unfinished' : [end.state, end.problem?.code].filter(Boolean).join(' ');
    states.set(state, (states.get(state) ?? 0) + 1);
  }
  const show = (counts: ReadonlyMap<string, number>) =>
    [...counts].map(([name, times]) => `${name} ${times}`).join(', ');
  process.stdout.write(`ended: ${show(states)}\nfaults: ${show(monkey.counts)}\n`);
}

async function makeImage(fleet: Fleet): Promise<string> {
  const layout = join(fleet.state, 'image');
  await promisify(execFile)(join(root, 'scripts/demo-image'), [layout]);
  return `oci:${layout}:web`;
}

const lack = lackForRealSals();
if (lack !== undefined) process.stdout.write(`simulated volumes and containers: ${lack}\n`);
const sals = lack === undefined ? 'real' : 'simulated';
const fleet = await Fleet.start('--storage', '4GiB', '--runners', '2', '--sals', sals);
try {
  const violations = await unleash(fleet, lack === undefined);
  process.exitCode = violations === 0 ? EXIT.ok : EXIT.failed;
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.stack : error}\n${fleet.logs()}\n`);
  process.stdout.write(`chaos ended early, seed ${seed}\n`);
  process.exitCode = EXIT.failed;
} finally {
  // What a killed fleet left running only a living one can stop.
  if (!fleet.isUp) await fleet.up().catch(() => undefined);
  await fleet[Symbol.asyncDispose]();
}
