export { BtrfsPool } from './btrfs-pool.ts';
export { openBtrfsVolumes } from './btrfs-sal.ts';
export { type BtrfsTools, findBtrfsTools } from './btrfs-tools.ts';
export { type OpenPool, type OpenPoolOptions, openPool, PoolConfig } from './open-pool.ts';
export { POOL_BYTES_MIN } from './pool-image.ts';
export { detectVolumes, type VolumeDetection } from './volume-detection.ts';
