import { handleVerb } from '../handle-verb.ts';
import type { Sal } from '../sal.ts';
import type { SalVerb } from '../step-contract.ts';
import { findPlannedVolume } from './planned-volume.ts';
import { snapshotVerb } from './snapshot-verb.ts';
import type { VolumeDriver } from './volume-driver.ts';
import { volumeKind } from './volume-kind.ts';
import { volumeResult, volumeVerb } from './volume-verb.ts';

/** The SAL of kind `volume` over a place to keep volumes. */
export function createVolumeSal(driver: VolumeDriver): Sal {
  return {
    kind: 'volume',
    status: driver.status,
    verbs: [volumeVerb(driver), snapshotVerb(driver), volumeHandleVerb(driver)],
    resource: volumeKind(driver),
  };
}

function volumeHandleVerb(driver: VolumeDriver): SalVerb {
  return handleVerb({
    kind: 'volume',
    find: async (context) => {
      const label = (await driver.find(context.rid)) ?? null;
      const volume = findPlannedVolume(label, context);
      return volume === null ? undefined : volumeResult(driver, context, volume.sizeBytes);
    },
  });
}
