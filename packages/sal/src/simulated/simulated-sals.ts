import type { NodeId } from '@hypha/protocol';
import { EFFECTS, type Effects } from '../effects.ts';
import type { Sal, SalStatus } from '../sal.ts';
import { createVolumeSal } from '../volume/volume-sal.ts';
import { SimulatedContainers } from './simulated-containers.ts';
import { SimulatedVolumes } from './simulated-volumes.ts';

/**
 * SALs that only pretend, for machines without root, btrfs or a container runtime: the same verbs, specs
 * and addresses, on a folder of records that runner and supervisor share and that survives both. Every
 * result says `simulated: true`.
 * @param options.folder made when absent
 * @param options.reasons why the real ones are not used, as a person would say it
 */
export function openSimulatedSals(options: {
  folder: string;
  node: NodeId;
  reasons?: { readonly volume?: string; readonly container?: string };
  effects?: Effects;
}): { volume: Sal; container: Sal } {
  const { folder, node, reasons = {}, effects = EFFECTS } = options;
  const volumes = new SimulatedVolumes({ folder, effects, status: statusOf(reasons.volume) });
  const status = statusOf(reasons.container);
  const containers = new SimulatedContainers({ folder, node, effects, volumes, status });
  return { volume: createVolumeSal(volumes), container: containers.sal };
}

function statusOf(reason: string | undefined): SalStatus {
  return {
    state: 'simulated',
    driver: 'simulated',
    ...(reason === undefined ? {} : { reason }),
  };
}
