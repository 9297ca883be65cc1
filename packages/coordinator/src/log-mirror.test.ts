import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Authority } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { createLogger } from '@hypha/service';
import { createFleet, openTempDir, signUpdate, TestLog } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { systemClock } from './clock.ts';
import { LogMirror } from './log-mirror.ts';

const fleet = createFleet();
const never = new AbortController().signal;
const revocation = (letter: string) =>
  signUpdate(
    fleet.authority,
    { type: 'revoke-node', node: `node_${letter.repeat(32)}`, reason: '' },
    fleet.roots,
  );

function setUp(folder: string) {
  const log = TestLog.of(fleet);
  const world: { authority: Authority | undefined } = { authority: fleet.authority };
  const open = () =>
    new LogMirror({
      folder,
      verifier: nodeVerifier,
      proofs: { consistency: ({ from, to }) => log.consistency(from, to) },
      clock: systemClock,
      log: createLogger({ name: 'test', level: 'silent' }),
      authority: () => world.authority,
    });
  return { log, world, open };
}

test('a coordinator has no head before it has an authority', async () => {
  await using folder = await openTempDir();
  const { log, world, open } = setUp(folder.path);
  const mirror = open();
  world.authority = undefined;
  await mirror.take(log.checkpoint(), never);
  expect(mirror.newest).toBeNull();
  world.authority = fleet.authority;
  await mirror.take(log.checkpoint(), never);
  expect(mirror.newest).toMatchObject({ size: log.size });
});

test('a coordinator that starts again has the head it pinned', async () => {
  await using folder = await openTempDir();
  const { log, open } = setUp(folder.path);
  await open().take(log.checkpoint(), never);
  const again = open();
  await again.open();
  expect(again.newest).toMatchObject({ size: log.size });
});

test('a stapled head that contradicts the pinned one is evidence, and no work is refused for it', async () => {
  await using folder = await openTempDir();
  const { log, open } = setUp(folder.path);
  const hidden = log.fork(log.size);
  hidden.append(revocation('a'));
  log.append(revocation('b'));
  const mirror = open();
  await mirror.take(log.checkpoint({ time: 1000 }), never);
  await mirror.offer(hidden.checkpoint({ time: 2000 }));
  expect(mirror.isDisputed).toBe(true);
  expect(mirror.newest).toMatchObject({ time: 1000 });
  expect(await readdir(join(folder.path, 'evidence'))).toHaveLength(1);
});

test('two updates with one number are evidence', async () => {
  await using folder = await openTempDir();
  const { open } = setUp(folder.path);
  const known = fleet.authority.apply(revocation('a'));
  const updates = [revocation('b')];
  const refusal = (() => {
    try {
      return known.extend(updates);
    } catch (error) {
      return error;
    }
  })();
  await open().keepRivals(known, updates, refusal);
  expect(await readdir(join(folder.path, 'evidence'))).toEqual([
    expect.stringMatching(/^authority-fork-/),
  ]);
});
