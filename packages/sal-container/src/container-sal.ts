import type { NodeId, Rid } from '@hypha/protocol';
import {
  EFFECTS,
  type Effects,
  type FindVolumeFolder,
  NO_SECRETS,
  type Sal,
  type SalStatus,
  type SecretFiles,
  type SubvolumePool,
} from '@hypha/sal';
import type { ContainerHost } from './container-host.ts';
import { containerResource } from './container-resource.ts';
import { Containers } from './containers.ts';
import { containerHandleVerb, ensureVerb } from './ensure-verb.ts';
import { execVerb } from './exec-verb.ts';
import type { ContainerMachine } from './runtime-detection.ts';
import { withStorageErrors } from './storage-effects.ts';

export interface ContainerSalOptions {
  /** As `detectContainers` found it. */
  readonly machine: ContainerMachine;
  readonly status: SalStatus;
  readonly node: NodeId;
  readonly pool: SubvolumePool;
  readonly findVolume: FindVolumeFolder;
  /** Default: there are none. */
  readonly secrets?: SecretFiles;
  /** Folder of this node for what ends with the machine, on a tmpfs or not. Made when missing. */
  readonly runFolder: string;
  /** Cgroup folder of the state directory, `hypha-<8 hex>`. */
  readonly group: string;
  /** Registries (`127.0.0.1:5000`) spoken to without TLS. Only loopback addresses count. */
  readonly plainRegistries?: readonly string[];
  readonly effects?: Effects;
  /** Wall clock, epoch milliseconds. */
  readonly nowMs: () => number;
}

const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/;

export interface ContainerSal extends Sal {
  /** Stops what runs on a volume, until the reconciler starts it again. */
  stopUsers(volume: Rid, signal: AbortSignal): Promise<void>;
}

/** Kind `container`, on the real machine. */
export function createContainerSal(options: ContainerSalOptions): ContainerSal {
  const { machine, status, node, pool, findVolume, runFolder, group, nowMs } = options;
  const host: ContainerHost = {
    ...machine,
    node,
    pool,
    findVolume,
    secrets: options.secrets ?? NO_SECRETS,
    runFolder,
    group,
    plainRegistries: (options.plainRegistries ?? []).filter((name) => LOOPBACK.test(name)),
    effects: withStorageErrors(options.effects ?? EFFECTS),
    nowMs,
  };
  const containers = new Containers(host);
  return {
    kind: 'container',
    status,
    verbs: [ensureVerb(containers), execVerb(containers), containerHandleVerb(containers)],
    resource: containerResource(containers),
    stopUsers: (volume, signal) => containers.stopUsers(volume, signal),
  };
}
