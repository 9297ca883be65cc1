import { openTempDir } from '@hypha/testkit';
import { test } from 'vitest';
import { compareAllPoints } from './crash-points/compare-points.ts';
import { SimulatedWorld } from './crash-points/simulated-world.ts';

test('a run on simulated SALs ends the same wherever its runner dies', {
  timeout: 600_000,
}, async ({ signal }) => {
  await using folder = await openTempDir('crash');
  const world = await SimulatedWorld.create(folder.path);
  const points = await compareAllPoints(world, { atOnce: 3, signal });
  process.stdout.write(`crash points: ${points} simulated\n`);
});
