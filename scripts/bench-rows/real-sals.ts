import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { JournalEvent } from '@hypha/protocol';
import { Fleet, root } from '../../test/fixtures/fleet.ts';
import { SignedRuns } from '../../test/fixtures/signed-runs.ts';
import { percentile, type Row, round, sample } from './measure.ts';

const run = promisify(execFile);
const RUNC = '/usr/sbin/runc';
const BTRFS = '/usr/bin/btrfs';
const SAMPLES = 20;
const GIB = 2 ** 30;

/** How long the named verb's steps took, milliseconds, as the journal has it. */
function stepDurations(events: readonly JournalEvent[], verb: string, prefix: string): number[] {
  const wanted = new Set(
    events.flatMap(({ body }) =>
      body.type === 'step-intent' && body.verb === verb && body.name?.startsWith(prefix) === true
        ? [body.step]
        : [],
    ),
  );
  return events.flatMap(({ body }) =>
    body.type === 'step-result' && wanted.has(body.step) ? [body.durationMs] : [],
  );
}

/** Create and start of a bare container with the same files: no image store, network, log or record. */
async function bareRunc(layout: string, dir: string): Promise<number[]> {
  const bundle = join(dir, 'bundle');
  await run('/usr/bin/umoci', ['unpack', '--image', `${layout}:web`, bundle]);
  const file = join(bundle, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as { process: Record<string, unknown> };
  config.process = { ...config.process, terminal: false, args: ['/bin/sleep', '1000'] };
  writeFileSync(file, JSON.stringify(config));
  const runc = (...args: string[]) => run(RUNC, ['--root', join(dir, 'runc'), ...args]);
  const samples: number[] = [];
  for (let index = 0; index < SAMPLES; index++) {
    const id = `hypha-bench-${process.pid}-${index}`;
    const start = performance.now();
    // Inherited pipes would keep `create` from returning: the container holds them open.
    await run('/bin/sh', [
      '-c',
      '"$@" </dev/null >/dev/null 2>&1',
      'sh',
      RUNC,
      '--root',
      join(dir, 'runc'),
      'create',
      '--bundle',
      bundle,
      id,
    ]);
    await runc('start', id);
    samples.push(performance.now() - start);
    await runc('delete', '--force', id);
  }
  return samples;
}

export async function containerStart(): Promise<Row> {
  const dir = mkdtempSync(join(tmpdir(), 'hypha-bench-'));
  try {
    const layout = join(dir, 'image');
    await run(join(root, 'scripts/demo-image'), [layout]);
    await using fleet = await Fleet.start('--storage', '2GiB');
    const runs = await SignedRuns.open(fleet);
    const source = `import { container } from 'hypha';
      export default async function deploy({ image }) {
        for (let i = 0; i < ${SAMPLES + 2}; i++)
          await container('c-' + i, { image, command: ['/bin/sleep', '1000'], memory: '16MiB', cpus: 0.01 });
      }`;
    const events = await runs.complete(
      runs.sign({
        deployment: 'bench',
        generation: 1,
        source,
        input: { image: `oci:${layout}:web` },
        caps: ['container'],
      }),
    );
    // The first two pay for unpacking the image and for cold caches.
    const ours = stepDurations(events, 'container.ensure', 'c-').slice(2);
    const p50Ms = percentile(ours, 0.5);
    const floorMs = percentile(await bareRunc(layout, dir), 0.5);
    return {
      name: 'container-start',
      p50Ms,
      p99Ms: percentile(ours, 0.99),
      floor: { name: 'bare runc create+start', p50Ms: floorMs },
      ratio: round(p50Ms / floorMs),
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Real bytes, so that a clone that copied would show. */
async function fill(path: string, bytes: number): Promise<void> {
  const block = Buffer.alloc(16 * 2 ** 20, 'hypha');
  const file = await open(path, 'w');
  for (let written = 0; written < bytes; written += block.length) await file.write(block);
  await file.sync();
  await file.close();
}

export async function volumeClone(): Promise<Row> {
  await using fleet = await Fleet.start('--storage', '4GiB');
  const runs = await SignedRuns.open(fleet);
  const limits = { resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 100 * GIB } };
  const declare = (clones: number) => `import { volume } from 'hypha';
    export default async function deploy() {
      const data = await volume('data', { size: '1MiB' });
      for (let i = 0; i < ${clones}; i++) await data.clone('clone-' + i);
    }`;
  const revision = (generation: number, clones: number) =>
    runs.complete(
      runs.sign({
        deployment: 'bench',
        generation,
        source: declare(clones),
        caps: ['volume'],
        limits,
      }),
    );
  await revision(1, 0);
  const { info } = await runs.node.resource({
    realm: 'default',
    deployment: 'bench',
    kind: 'volume',
    name: 'data',
  });
  const { path } = info as { path: string };
  await fill(join(path, 'data.bin'), GIB);
  const ours = stepDurations(await revision(2, SAMPLES), 'volume.ensure', 'clone-');
  const scratch = join(dirname(path), `bench-${process.pid}`);
  mkdirSync(scratch);
  const floor = await sample(
    SAMPLES,
    (index) => run(BTRFS, ['subvolume', 'snapshot', path, join(scratch, String(index))]),
    1,
  );
  for (let index = 0; index <= SAMPLES; index++) {
    await run(BTRFS, ['subvolume', 'delete', join(scratch, String(index))]);
  }
  rmSync(scratch, { recursive: true });
  const p50Ms = percentile(ours, 0.5);
  const floorMs = percentile(floor, 0.5);
  return {
    name: 'volume-clone',
    p50Ms,
    p99Ms: percentile(ours, 0.99),
    floor: { name: 'btrfs subvolume snapshot', p50Ms: floorMs },
    ratio: round(p50Ms / floorMs),
  };
}
