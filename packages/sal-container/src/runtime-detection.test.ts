import { detectCgroups } from '@hypha/sal';
import { expect, test } from 'vitest';
import { detectContainers } from './runtime-detection.ts';
import { findLack } from './testing/scratch.ts';

const lacking = await findLack();

test('says which runtime, which cgroups and which helpers it found', async ({ skip }) => {
  if (lacking !== undefined) return skip(lacking);
  const { status, machine } = await detectContainers(AbortSignal.timeout(30_000));
  const { layout } = await detectCgroups();
  expect(status.state).toBe('real');
  expect(status.driver).toMatch(
    /^(?:runc|crun) \d+\.\d+\.\d+ \(\S+ \S+\), conmon \d\S+, skopeo \d\S+, umoci \d\S+/,
  );
  expect(status.driver).toContain(layout === 'v1' ? 'cgroups v1' : `${layout} cgroups`);
  // crun refuses anything but v2.
  if (layout !== 'unified') expect(machine?.tools.runtime).toMatch(/\/runc$/);
});
