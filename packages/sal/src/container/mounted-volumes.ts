import { HyphaError, type Rid } from '@hypha/protocol';
import type { ContainerSpec } from '../specs.ts';
import type { StepContext } from '../step-contract.ts';

/** Throws `E_REFERENCE` unless every volume that a container mounts is there or planned. */
export async function assertMounts(
  spec: Pick<ContainerSpec, 'mounts'>,
  { planned }: Pick<StepContext, 'planned'>,
  hasVolume: (rid: Rid) => Promise<boolean>,
): Promise<void> {
  for (const [path, volume] of Object.entries(spec.mounts)) {
    if (planned?.find(volume.$rid) !== undefined || (await hasVolume(volume.$rid))) continue;
    throw new HyphaError('E_REFERENCE', `volume ${volume.name} to mount at ${path} is not there`, {
      where: { path: `mounts.${path}` },
    });
  }
}
