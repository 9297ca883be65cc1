import { HyphaError, type Json, type Rid } from '@hypha/protocol';
import { z } from 'zod';
import { labelForStep, specHashOf } from '../resource-label.ts';
import { type VolumeResult, VolumeSpec } from '../specs.ts';
import { onResource, parseArguments, type ResourceContext } from '../step-arguments.ts';
import {
  defineVerb,
  NO_USE,
  type Probe,
  type SalVerb,
  type StepContext,
  type StepPlan,
} from '../step-contract.ts';
import { assertVolume, findPlannedVolume, isSnapshotPlanned } from './planned-volume.ts';
import { VOLUME_STEP_MS_MAX, type VolumeDriver, VolumeLabel } from './volume-driver.ts';

const VERB = 'volume.ensure';

const VolumeBefore = z.strictObject({ volume: VolumeLabel.nullable() });

/** Declares a volume: creates, clones or resizes it, and keeps its content for undo where asked. */
export function volumeVerb(driver: VolumeDriver): SalVerb {
  return defineVerb<VolumeSpec>({
    verb: VERB,
    class: 'ensure',
    capability: 'volume',
    kind: 'volume',
    parse: (args) => parseArguments(VERB, VolumeSpec, args),
    spec: (args) => ({
      spec: specJson(args),
      uses: { ...NO_USE, storageBytes: args.size },
    }),
    deadlineMs: () => VOLUME_STEP_MS_MAX,
    plan: (context, args) => planVolume(driver, context, args),
    predict: async (context, args) => resultOf(driver, context, args),
    apply: (context, args, before) => applyVolume(driver, context, args, before),
    probe: (context, args, before) => probeVolume(driver, context, args, before),
    undo: (context, _args, before) => undoVolume(driver, context, before),
  });
}

async function planVolume(
  driver: VolumeDriver,
  context: StepContext,
  spec: VolumeSpec,
): Promise<StepPlan> {
  const { rid, name } = onResource(context);
  const before = { volume: (await driver.find(rid)) ?? null };
  const volume = findPlannedVolume(before.volume, onResource(context));
  const source = spec.cloneOf?.$rid;
  if (volume === null) {
    if (source !== undefined) await assertSource(driver, context, source);
    return { action: 'create', before };
  }
  if (source !== undefined && source !== volume.clonedFrom) {
    throw new HyphaError('E_CONFLICT', `volume ${name} exists and cannot become a clone`, {
      where: { path: 'cloneOf' },
      hint: 'declare the clone under another name',
    });
  }
  const differs = volume.sizeBytes === spec.size ? [] : ['size'];
  const isSpecChanged = volume.specHash !== specHashOf(specJson(spec));
  const isChanged = isSpecChanged || (await isSnapshotDue(driver, context, spec, volume));
  if (differs.length === 0 && isChanged) differs.push('snapshotBefore');
  return { action: differs.length === 0 ? 'no-op' : 'update', before, differs };
}

/**
 * The content of a volume changes while its spec does not, and only what changes something is undone: so the first
 * step of a run that asks for a snapshot of a volume that was there before it is an update.
 */
async function isSnapshotDue(
  driver: VolumeDriver,
  context: StepContext,
  spec: VolumeSpec,
  volume: object | null,
): Promise<boolean> {
  if (!spec.snapshotBefore || volume === null) return false;
  const { rid, run } = onResource(context);
  if (isSnapshotPlanned(onResource(context))) return false;
  return (await driver.findSnapshot(rid, run)) === undefined;
}

async function applyVolume(
  driver: VolumeDriver,
  context: StepContext,
  spec: VolumeSpec,
  beforeJson: Json,
): Promise<Json> {
  const { rid, run, op, signal } = onResource(context);
  signal.throwIfAborted();
  const before = VolumeBefore.parse(beforeJson);
  const current = await driver.find(rid);
  if (current === undefined) {
    const source = spec.cloneOf?.$rid;
    if (source !== undefined) await assertSource(driver, context, source);
    const label = labelForStep(onResource(context), 'volume', specJson(spec));
    const clonedFrom = source ?? null;
    await driver.create({ ...label, sizeBytes: spec.size, clonedFrom }, source, signal);
    return resultOf(driver, context, spec);
  }
  if (await isSnapshotDue(driver, context, spec, before.volume)) {
    await driver.createSnapshot({ v: 1, rid, name: run, createdBy: op }, signal);
  }
  const specHash = specHashOf(specJson(spec));
  const isGrown = spec.size > current.sizeBytes;
  if (isGrown) {
    await driver.ensureRoom(spec.size - current.sizeBytes);
    await driver.setLimit(rid, spec.size, signal);
  }
  if (isGrown || current.specHash !== specHash) {
    const sizeBytes = Math.max(spec.size, current.sizeBytes);
    await driver.setLabel({ ...current, specHash, sizeBytes, lastOp: op }, signal);
  }
  return resultOf(driver, context, spec);
}

/** Done when the label says so: it is written last. */
async function probeVolume(
  driver: VolumeDriver,
  context: StepContext,
  spec: VolumeSpec,
  beforeJson: Json,
): Promise<Probe> {
  const { rid } = onResource(context);
  const before = VolumeBefore.parse(beforeJson);
  const current = await driver.find(rid);
  const isReached =
    current !== undefined &&
    current.specHash === specHashOf(specJson(spec)) &&
    current.sizeBytes >= spec.size;
  if (!isReached || (await isSnapshotDue(driver, context, spec, before.volume)))
    return { state: 'absent' };
  return { state: 'done', result: resultOf(driver, context, spec) };
}

/**
 * Content first, so that a cut undo still finds the snapshot it came from. What this step created goes;
 * what an earlier run created keeps everything but the changes of this step.
 */
async function undoVolume(
  driver: VolumeDriver,
  context: StepContext,
  beforeJson: Json,
): Promise<void> {
  const { rid, run, op, signal } = onResource(context);
  const before = VolumeBefore.parse(beforeJson);
  await driver.discardDraft(rid, signal);
  const current = await driver.find(rid);
  if (before.volume === null) {
    if (current?.createdBy === op) await driver.delete(rid, signal);
    return;
  }
  const snapshot = await driver.findSnapshot(rid, run);
  if (snapshot?.createdBy === op && current !== undefined) await driver.restore(rid, run, signal);
  if (snapshot === undefined || snapshot.createdBy === op) {
    await driver.deleteSnapshot(rid, run, signal);
  }
  if (current === undefined) return;
  await driver.setLimit(rid, before.volume.sizeBytes, signal);
  if (current.lastOp === op) await driver.setLabel(before.volume, signal);
}

async function assertSource(
  driver: VolumeDriver,
  context: StepContext,
  source: Rid,
): Promise<void> {
  const purpose = `clone into volume ${context.name}`;
  await assertVolume(driver, context, { rid: source, purpose, path: 'cloneOf' });
}

/** The spec as the desired record holds it. */
function specJson(spec: VolumeSpec): Json {
  return {
    size: spec.size,
    snapshotBefore: spec.snapshotBefore,
    ...(spec.cloneOf === undefined ? {} : { cloneOf: spec.cloneOf }),
  };
}

function resultOf(driver: VolumeDriver, context: StepContext, spec: VolumeSpec): Json {
  return volumeResult(driver, onResource(context), spec.size);
}

/** What a script's handle holds. */
export function volumeResult(
  driver: VolumeDriver,
  { rid, name }: ResourceContext,
  sizeBytes: number,
): VolumeResult {
  const simulated = driver.status.state === 'simulated';
  return { $rid: rid, kind: 'volume', name, sizeBytes, simulated };
}
