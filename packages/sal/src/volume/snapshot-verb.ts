import type { Json } from '@hypha/protocol';
import { z } from 'zod';
import { SnapshotArgs } from '../specs.ts';
import { onResource, parseArguments } from '../step-arguments.ts';
import {
  defineVerb,
  type Probe,
  type SalVerb,
  type StepContext,
  type StepPlan,
} from '../step-contract.ts';
import { assertVolume } from './planned-volume.ts';
import { SnapshotLabel, VOLUME_STEP_MS_MAX, type VolumeDriver } from './volume-driver.ts';

const VERB = 'volume.snapshot';

const SnapshotBefore = z.strictObject({ snapshot: SnapshotLabel.nullable() });

/** A named, read-only copy of a volume's content. One that exists stays as it is. */
export function snapshotVerb(driver: VolumeDriver): SalVerb {
  return defineVerb<SnapshotArgs>({
    verb: VERB,
    class: 'transition',
    capability: 'volume',
    kind: 'volume',
    parse: (args) => parseArguments(VERB, SnapshotArgs, args),
    deadlineMs: () => VOLUME_STEP_MS_MAX,
    plan: (context, args) => planSnapshot(driver, context, args),
    predict: async (context, args) => resultOf(driver, context, args),
    apply: (context, args) => applySnapshot(driver, context, args),
    probe: async (context, args): Promise<Probe> => {
      const found = await driver.findSnapshot(onResource(context).rid, args.name);
      if (found === undefined) return { state: 'absent' };
      return { state: 'done', result: resultOf(driver, context, args) };
    },
    undo: async (context, args, before) => {
      const { rid, op, signal } = onResource(context);
      if (SnapshotBefore.parse(before).snapshot !== null) return;
      const found = await driver.findSnapshot(rid, args.name);
      // Nothing whole may still be half of ours; a whole one of another step is not ours to delete.
      if (found === undefined || found.createdBy === op) {
        await driver.deleteSnapshot(rid, args.name, signal);
      }
    },
  });
}

async function planSnapshot(
  driver: VolumeDriver,
  context: StepContext,
  args: SnapshotArgs,
): Promise<StepPlan> {
  const { rid, name } = onResource(context);
  const purpose = `snapshot volume ${name}`;
  await assertVolume(driver, context, { rid, purpose, path: 'volume' });
  const snapshot = (await driver.findSnapshot(rid, args.name)) ?? null;
  const isPlanned = (context.planned?.stepsOn(rid) ?? []).some(
    (step) => step.verb === VERB && SnapshotArgs.safeParse(step.args).data?.name === args.name,
  );
  const action = snapshot === null && !isPlanned ? 'create' : 'no-op';
  return { action, before: { snapshot } };
}

async function applySnapshot(
  driver: VolumeDriver,
  context: StepContext,
  args: SnapshotArgs,
): Promise<Json> {
  const { rid, name, op, signal } = onResource(context);
  signal.throwIfAborted();
  const purpose = `snapshot volume ${name}`;
  await assertVolume(driver, context, { rid, purpose, path: 'volume' });
  if ((await driver.findSnapshot(rid, args.name)) === undefined) {
    await driver.createSnapshot({ v: 1, rid, name: args.name, createdBy: op }, signal);
  }
  return resultOf(driver, context, args);
}

function resultOf(driver: VolumeDriver, context: StepContext, args: SnapshotArgs): Json {
  const simulated = driver.status.state === 'simulated';
  return { volume: onResource(context).rid, name: args.name, simulated };
}
