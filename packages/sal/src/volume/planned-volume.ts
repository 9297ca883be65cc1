/** Volumes in the world that a plan predicts (S8 of the step contract). */
import { HyphaError, type Rid } from '@hypha/protocol';
import { VolumeSpec } from '../specs.ts';
import type { ResourceContext } from '../step-arguments.ts';
import type { StepContext } from '../step-contract.ts';
import type { VolumeDriver, VolumeLabel } from './volume-driver.ts';

/** What later steps can tell of a volume. */
export type VolumeState = Pick<VolumeLabel, 'sizeBytes' | 'specHash' | 'clonedFrom'>;

/**
 * The volume as earlier steps of the plan would leave it; as it is where there are none. A size never shrinks
 * before the commit.
 * @param volume as the machine has it; null: there is none
 */
export function findPlannedVolume(
  volume: VolumeState | null,
  context: Pick<ResourceContext, 'planned' | 'rid'>,
): VolumeState | null {
  return (context.planned?.stepsOn(context.rid) ?? []).reduce((state, { desired }) => {
    if (desired === null) return state;
    const { size, cloneOf } = VolumeSpec.parse(desired.spec);
    const sizeBytes = Math.max(size, state?.sizeBytes ?? 0);
    const clonedFrom = state === null ? (cloneOf?.$rid ?? null) : state.clonedFrom;
    return { sizeBytes, specHash: desired.specHash, clonedFrom };
  }, volume);
}

/** True when an earlier step of the plan would keep the content: the first that asks for it once the volume is there. */
export function isSnapshotPlanned({
  planned,
  rid,
}: Pick<ResourceContext, 'planned' | 'rid'>): boolean {
  return (planned?.stepsOn(rid) ?? []).some(
    ({ action, desired }) =>
      action !== 'create' && desired !== null && VolumeSpec.parse(desired.spec).snapshotBefore,
  );
}

/** Throws `E_REFERENCE` unless the volume is there or planned. */
export async function assertVolume(
  driver: Pick<VolumeDriver, 'find'>,
  { planned }: Pick<StepContext, 'planned'>,
  { rid, purpose, path }: { readonly rid: Rid; readonly purpose: string; readonly path: string },
): Promise<void> {
  if (planned?.find(rid) !== undefined || (await driver.find(rid)) !== undefined) return;
  throw new HyphaError('E_REFERENCE', `cannot ${purpose}: the volume is not there`, {
    where: { path },
  });
}
