export * from './command.ts';
export * from './fence-cgroup.ts';
export * from './quantity.ts';
export * from './resource-kind.ts';
export * from './sal.ts';
export * from './specs.ts';
export * from './step-contract.ts';
export * from './subvolume-pool.ts';
