import {
  createVolumeSal,
  EFFECTS,
  type Effects,
  type FindVolumeFolder,
  type Sal,
} from '@hypha/sal';
import { BtrfsVolumes, type StopUsers } from './btrfs-volumes.ts';
import type { OpenPool } from './open-pool.ts';

/** The SAL of kind `volume` on an open pool, and where its volumes' content is. */
export function openBtrfsVolumes(options: {
  open: OpenPool;
  /** Path of the `cp` tool. */
  cp: string;
  effects?: Effects;
  /** Called where a volume's content is replaced. Default: nothing runs on volumes. */
  stopUsers?: StopUsers;
}): { sal: Sal; findVolume: FindVolumeFolder } {
  const { open, cp, effects = EFFECTS, stopUsers = async () => {} } = options;
  const { pool, quota, driver } = open;
  const volumes = new BtrfsVolumes({ pool, quota, effects, cp, driver, stopUsers });
  return { sal: createVolumeSal(volumes), findVolume: volumes.findFolder };
}
