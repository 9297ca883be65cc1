import { onTestFinished, test } from 'vitest';
import { compareAllPoints } from './crash-points/compare-points.ts';
import { findRealLack, RealWorld } from './crash-points/real-world.ts';

/** Deployments side by side on one node: most of a point is waiting for commands. */
const AT_ONCE = 3;

const lacking = await findRealLack();

test('a run on real SALs ends the same wherever its runner dies', {
  timeout: 1_800_000,
}, async (context) => {
  if (lacking !== undefined) context.skip(lacking);
  const world = await RealWorld.create();
  const comparing = compareAllPoints(world, { atOnce: AT_ONCE, signal: context.signal });
  onTestFinished(async () => {
    // After a timeout too, every run takes down what it made before the node goes.
    await comparing.catch(() => undefined);
    await world.close();
  }, 300_000);
  process.stdout.write(`crash points: ${await comparing} real\n`);
});
