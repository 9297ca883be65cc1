import type { NodeId, Rid } from '@hypha/protocol';
import { EFFECTS, type Effects } from '../effects.ts';
import type { Sal, SalStatus } from '../sal.ts';
import { createVolumeSal } from '../volume/volume-sal.ts';
import { SimulatedContainers } from './simulated-containers.ts';
import { SimulatedVolumes } from './simulated-volumes.ts';

/**
 * SALs that only pretend, for machines without root, btrfs or a container runtime: the same verbs, specs
 * and addresses, on a folder of records that runner and supervisor share and that survives both. Every
 * result says `simulated: true`.
 */
export interface SimulationOptions {
  /** Of the records; made when absent. */
  readonly folder: string;
  /** Why the real one is not used, as a person would say it. */
  readonly reason?: string | undefined;
  readonly effects?: Effects;
}

export function openSimulatedVolumes(options: SimulationOptions): {
  sal: Sal;
  hasVolume: (rid: Rid) => Promise<boolean>;
} {
  const { folder, reason, effects = EFFECTS } = options;
  const volumes = new SimulatedVolumes({ folder, effects, status: statusOf(reason) });
  return {
    sal: createVolumeSal(volumes),
    hasVolume: async (rid) => (await volumes.find(rid)) !== undefined,
  };
}

/** @param options.hasVolume volumes may be real where containers are not */
export function openSimulatedContainers(
  options: SimulationOptions & { node: NodeId; hasVolume: (rid: Rid) => Promise<boolean> },
): Sal {
  const { folder, node, hasVolume, reason, effects = EFFECTS } = options;
  const status = statusOf(reason);
  return new SimulatedContainers({ folder, node, effects, hasVolume, status }).sal;
}

/** Both, on one folder. */
export function openSimulatedSals(options: SimulationOptions & { node: NodeId }): {
  volume: Sal;
  container: Sal;
} {
  const { sal: volume, hasVolume } = openSimulatedVolumes(options);
  return { volume, container: openSimulatedContainers({ ...options, hasVolume }) };
}

function statusOf(reason: string | undefined): SalStatus {
  return {
    state: 'simulated',
    driver: 'simulated',
    ...(reason === undefined ? {} : { reason }),
  };
}
