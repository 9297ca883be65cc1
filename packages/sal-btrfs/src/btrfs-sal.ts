import {
  createVolumeSal,
  EFFECTS,
  type Effects,
  type FindVolumeFolder,
  type Sal,
} from '@hypha/sal';
import { BtrfsVolumes } from './btrfs-volumes.ts';
import type { OpenPool } from './open-pool.ts';

/** The SAL of kind `volume` on an open pool, and where its volumes' content is. */
export function openBtrfsVolumes(options: {
  open: OpenPool;
  /** Path of the `cp` tool. */
  cp: string;
  effects?: Effects;
}): { sal: Sal; findVolume: FindVolumeFolder } {
  const { open, cp, effects = EFFECTS } = options;
  const { pool, quota, driver } = open;
  const volumes = new BtrfsVolumes({ pool, quota, effects, cp, driver });
  return { sal: createVolumeSal(volumes), findVolume: volumes.findFolder };
}
