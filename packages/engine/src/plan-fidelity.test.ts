/** What a plan says, an apply does: on SALs with verbs of every class, through the revisions of one deployment. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type DesiredResource,
  type Json,
  PlanDocument,
  type PlanStep,
  planStepOf,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { composeSals } from '@hypha/sal';
import { openSimulatedSals } from '@hypha/sal/simulated';
import { openTempDir } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { NODE, SagaRig } from './testing/saga-rig.ts';
import type { Script } from './testing/scripted-guest.ts';

const IMAGES = ['1', '2'].map((digit) => `registry.example/web@sha256:${digit.repeat(64)}`);

const REVISIONS: readonly { readonly title: string; readonly script: Script }[] = [
  {
    title: 'the first',
    script: async ({ call }) => {
      const data = refOf(await call('volume.ensure', 'data', { size: '1GiB' }));
      const copy = refOf(await call('volume.ensure', 'copy', { size: '1GiB', cloneOf: data }));
      const mounts = { '/data': data, '/copy': copy };
      await call('container.ensure', 'web', { image: IMAGES[0] ?? '', mounts });
      await call('container.ensure', 'web', { image: IMAGES[0] ?? '', mounts });
      return await call('container.get', 'web', {});
    },
  },
  {
    title: 'one that changes what there is, some of it twice',
    script: async ({ call }) => {
      const before = refOf(await call('volume.get', 'data', {}));
      const data = refOf(
        await call('volume.ensure', 'data', { size: '2GiB', snapshotBefore: true }),
      );
      await call('volume.snapshot', 'data', { volume: before, name: 'kept' });
      await call('volume.snapshot', 'data', { volume: data, name: 'kept' });
      await call('volume.ensure', 'data', { size: '3GiB' });
      const mounts = { '/data': data };
      await call('container.ensure', 'web', { image: IMAGES[1] ?? '', mounts });
      await call('container.ensure', 'web', { image: IMAGES[1] ?? '', mounts, memory: '256MiB' });
      await call('container.ensure', 'other', { image: IMAGES[1] ?? '', mounts });
    },
  },
  {
    title: 'one that changes nothing but a limit',
    script: async ({ call }) => {
      const data = refOf(await call('volume.ensure', 'data', { size: '3GiB' }));
      const mounts = { '/data': data };
      const [web] = await Promise.all([
        call('container.ensure', 'web', { image: IMAGES[1] ?? '', mounts, memory: '512MiB' }),
        call('container.ensure', 'other', { image: IMAGES[1] ?? '', mounts }),
      ]);
      return web;
    },
  },
  {
    title: 'one that copes with what cannot be',
    script: async ({ call, log }) => {
      const data = refOf(await call('volume.ensure', 'data', { size: '3GiB' }));
      for (const [verb, name, args] of [
        ['volume.ensure', 'copy', { size: '1GiB', cloneOf: data }],
        ['volume.get', 'absent', {}],
        ['container.ensure', 'web', { image: 'oci:/nowhere:latest' }],
      ] as const) {
        await call(verb, name, args).then(undefined, ({ code }) => log(code));
      }
    },
  },
];

/** A handle as the prelude passes it on. */
function refOf(handle: Json): Json {
  const { $rid, kind, name } = handle as Record<string, Json>;
  return { $rid: $rid ?? null, kind: kind ?? null, name: name ?? null };
}

/** Every file under a folder, by path. */
async function capture(folder: string): Promise<Record<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const paths = files.map((file) => join(file.parentPath, file.name)).sort();
  const texts = paths.map(async (path) => [path, await readFile(path, 'utf8')] as const);
  return Object.fromEntries(await Promise.all(texts));
}

function shownOf({ step, verb, name, action, differs, specHash, argsHash }: PlanStep) {
  return { step, verb, name, action, differs, specHash, argsHash };
}

test('every revision of a deployment does what its plan says, and its plan nothing', async () => {
  await using folder = await openTempDir();
  const { volume, container } = openSimulatedSals({ folder: folder.path, node: NODE });
  const resources = { milliCpus: 8000, memoryBytes: 2 ** 33, storageBytes: 2 ** 36 };
  let committed: readonly DesiredResource[] = [];
  for (const [index, { title, script }] of REVISIONS.entries()) {
    const rigOf = (changes: object) => {
      const caps = ['volume', 'container'];
      const rig = new SagaRig(script, {
        caps,
        limits: { resources },
        generation: index + 1,
        ...changes,
      });
      rig.world.sals = () => composeSals([volume, container]);
      rig.committed = [...committed];
      return rig;
    };
    const before = await capture(folder.path);
    const planned = await rigOf({ mode: 'plan' }).run();
    expect(planned, title).toEqual({ state: 'committed', output: expect.any(String) });
    const plan = PlanDocument.parse(JSON.parse('output' in planned ? planned.output : 'null'));
    expect(await capture(folder.path), title).toEqual(before);
    const applied = rigOf({ expect: { [NODE]: plan.hash ?? '' } });
    expect((await applied.run()).state, title).toBe('committed');
    const failed = new Set(applied.bodiesOf('step-error').map(({ step }) => step));
    const made = applied
      .bodiesOf('step-intent')
      .map((intent) => shownOf(planStepOf(nodeVerifier, intent)))
      .map((shown) => (failed.has(shown.step) ? { ...shown, action: 'refuse' } : shown))
      .toSorted((left, right) => left.step - right.step);
    expect(plan.steps.map(shownOf), title).toEqual(made);
    const [commit] = applied.bodiesOf('committed');
    const gone = committed.filter(({ rid }) => !commit?.desired.some((other) => other.rid === rid));
    expect(plan.removals.map(({ name }) => name).sort(), title).toEqual(
      gone.map(({ name }) => name).sort(),
    );
    committed = commit?.desired ?? [];
  }
});
