import type { Sal } from '../sal.ts';
import { snapshotVerb } from './snapshot-verb.ts';
import type { VolumeDriver } from './volume-driver.ts';
import { volumeKind } from './volume-kind.ts';
import { volumeVerb } from './volume-verb.ts';

/** The SAL of kind `volume` over a place to keep volumes. */
export function createVolumeSal(driver: VolumeDriver): Sal {
  return {
    kind: 'volume',
    status: driver.status,
    verbs: [volumeVerb(driver), snapshotVerb(driver)],
    resource: volumeKind(driver),
  };
}
