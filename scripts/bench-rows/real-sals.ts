import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { JournalEvent } from '@hypha/protocol';
import { root } from '../../test/fixtures/fleet.ts';
import { lackForRealSals } from '../../test/fixtures/real-sals.ts';
import { SignedRuns } from '../../test/fixtures/signed-runs.ts';
import { type Budget, isWithinFloor, sample, timesRow } from './measure.ts';
import { ownFleet } from './own-fleet.ts';

const run = promisify(execFile);
const RUNC = '/usr/sbin/runc';
const BTRFS = '/usr/bin/btrfs';
const UMOCI = '/usr/bin/umoci';
const SAMPLES = 20;
/** They pay for cold caches, the first container for unpacking its image too. */
const WARM_UP = 2;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const CONTAINER_EXTRA_MS = 15;
const CLONE_EXTRA_MS = 5;

/** How long the named verb's steps took, milliseconds, as the journal has it. */
function stepDurations(events: readonly JournalEvent[], verb: string, prefix: string): number[] {
  const wanted = new Set<number>();
  for (const { body } of events) {
    if (body.type !== 'step-intent' || body.verb !== verb) continue;
    if (body.name?.startsWith(prefix) === true) wanted.add(body.step);
  }
  return events.flatMap(({ body }) =>
    body.type === 'step-result' && wanted.has(body.step) ? [body.durationMs] : [],
  );
}

/** A folder for a bundle and runc's state, below which nothing is left when `own` ends. */
function ownFolder(own: AsyncDisposableStack): string {
  const dir = mkdtempSync(join(tmpdir(), 'hypha-bench-'));
  own.defer(() => rmSync(dir, { recursive: true, force: true, maxRetries: 10 }));
  return dir;
}

/** Create and start of a bare container with the same files: no image store, network, log or record. */
async function bareRunc(own: AsyncDisposableStack, layout: string, dir: string): Promise<number[]> {
  const bundle = join(dir, 'bundle');
  await run(UMOCI, ['unpack', '--image', `${layout}:web`, bundle]);
  const file = join(bundle, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as { process: Record<string, unknown> };
  config.process = { ...config.process, terminal: false, args: ['/bin/sleep', '1000'] };
  writeFileSync(file, JSON.stringify(config));
  const runc = [RUNC, '--root', join(dir, 'runc')] as const;
  // Inherited pipes would keep `create` from returning: the container holds them open.
  const shim = ['-c', 'exec "$@" </dev/null >/dev/null 2>&1', 'sh'] as const;
  const samples: number[] = [];
  for (let index = 0; index < SAMPLES + WARM_UP && !own.disposed; index++) {
    const id = `hypha-bench-${process.pid}-${index}`;
    try {
      const start = performance.now();
      await run('/bin/sh', [...shim, ...runc, 'create', '--bundle', bundle, id]);
      await run('/bin/sh', [...shim, ...runc, 'start', id]);
      samples.push(performance.now() - start);
    } finally {
      await run('/bin/sh', [...shim, ...runc, 'delete', '--force', id]);
    }
  }
  return samples.slice(WARM_UP);
}

export const containerStart: Budget = {
  goal: '≤ floor + 15 ms',
  isMet: (row) => isWithinFloor(row, CONTAINER_EXTRA_MS),
  lack: lackForRealSals,
  measure: async (own) => {
    const dir = ownFolder(own);
    const layout = join(dir, 'image');
    await run(join(root, 'scripts/demo-image'), [layout]);
    const fleet = await ownFleet(own, '--sals', 'real', '--storage', '2GiB');
    const runs = await SignedRuns.open(fleet);
    const samples: number[] = [];
    // One at a time: each has half a core, because the runtime starts inside the container's own limit.
    for (let index = 1; index <= SAMPLES + WARM_UP; index++) {
      const envelope = runs.sign({
        deployment: 'bench',
        generation: index,
        source: `import { container } from 'hypha';
          export default async function deploy({ image }) {
            const command = ['/bin/sleep', '1000'];
            await container('c-${index}', { image, command, memory: '64MiB', cpus: 0.5 });
          }`,
        input: { image: `oci:${layout}:web` },
        caps: ['container'],
        limits: { resources: { milliCpus: 500, memoryBytes: 64 * MIB, storageBytes: GIB } },
      });
      samples.push(...stepDurations(await runs.complete(envelope), 'container.ensure', 'c-'));
    }
    const bare = bareRunc(own, layout, dir);
    // Its container in hand goes before the folder with runc's record of it.
    own.defer(async () => void (await bare.catch(() => undefined)));
    const floor = { name: 'bare runc create+start', samples: await bare };
    return timesRow('container-start', samples.slice(WARM_UP), floor);
  },
};

/** Real bytes, so that a clone that copied would show. */
async function fill(path: string, bytes: number): Promise<void> {
  const block = Buffer.alloc(16 * MIB, 'hypha');
  await using file = await open(path, 'w');
  for (let written = 0; written < bytes; written += block.length) await file.write(block);
  await file.sync();
}

export const volumeClone: Budget = {
  goal: '≤ floor + 5 ms',
  isMet: (row) => isWithinFloor(row, CLONE_EXTRA_MS),
  lack: lackForRealSals,
  measure: async (own) => {
    const fleet = await ownFleet(own, '--sals', 'real', '--storage', '40GiB');
    const runs = await SignedRuns.open(fleet);
    const count = SAMPLES + WARM_UP;
    const revision = (generation: number, clones: number) =>
      runs.complete(
        runs.sign({
          deployment: 'bench',
          generation,
          source: `import { volume } from 'hypha';
            export default async function deploy() {
              const data = await volume('data', { size: '1025MiB' });
              for (let i = 0; i < ${clones}; i++) await data.clone('clone-' + i);
            }`,
          caps: ['volume'],
          limits: {
            resources: { milliCpus: 0, memoryBytes: 0, storageBytes: (clones + 1) * 1025 * MIB },
          },
        }),
      );
    await revision(1, 0);
    const place = { realm: 'default', deployment: 'bench', kind: 'volume', name: 'data' } as const;
    const { rid } = await runs.node.resource(place);
    const pool = join(fleet.state, 'nodes/node-1/sals/pool');
    const path = join(pool, 'volumes', rid);
    await fill(join(path, 'data/content.bin'), GIB);
    const events = await revision(2, count);
    // In the fleet's own pool, with which it goes.
    const scratch = join(pool, 'bench');
    mkdirSync(scratch);
    const snapshot = (index: number) =>
      run(BTRFS, ['subvolume', 'snapshot', path, join(scratch, String(index))]);
    const samples = await sample(SAMPLES, snapshot, WARM_UP);
    const floor = { name: 'btrfs subvolume snapshot', samples };
    const ours = stepDurations(events, 'volume.ensure', 'clone-').slice(WARM_UP);
    return timesRow('volume-clone', ours, floor);
  },
};
