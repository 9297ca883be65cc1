import { join } from 'node:path';
import type { NodeId, Rid } from '@hypha/protocol';
import type {
  CgroupLayout,
  Effects,
  FindVolumeFolder,
  SecretFiles,
  SubvolumePool,
} from '@hypha/sal';

/** Absolute paths of the programs the SAL drives. */
export interface ContainerTools {
  /** The OCI runtime: runc or crun. */
  readonly runtime: string;
  readonly conmon: string;
  readonly skopeo: string;
  readonly umoci: string;
  readonly ip: string;
  readonly mount: string;
  readonly umount: string;
}

/** What every part of the SAL works with: one node of one machine. */
export interface ContainerHost {
  readonly node: NodeId;
  readonly tools: ContainerTools;
  readonly cgroups: CgroupLayout;
  /** Adapted to this machine's architecture; null when the machine has no profile. */
  readonly seccomp: SeccompProfile | null;
  /** True when the kernel can bound swap per cgroup. */
  readonly limitsSwap: boolean;
  readonly effects: Effects;
  readonly pool: SubvolumePool;
  readonly findVolume: FindVolumeFolder;
  readonly secrets: SecretFiles;
  /**
   * Folder for what ends with the machine: runtime state, bundles, sockets. Need not be on a tmpfs.
   * Shared by the processes of the node, and by nobody else.
   */
  readonly runFolder: string;
  /** Cgroup folder of this state directory, `hypha-<8 hex>`: fences and containers live below it. */
  readonly group: string;
  /** `host:port` of registries spoken to without TLS. Loopback only. */
  readonly plainRegistries: readonly string[];
  /** Wall clock, epoch milliseconds. */
  nowMs(): number;
}

/** `linux.seccomp` of the OCI runtime configuration. */
export interface SeccompProfile {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures: readonly string[];
  readonly syscalls: readonly {
    readonly names: readonly string[];
    readonly action: string;
    readonly errnoRet?: number;
    readonly args?: readonly {
      readonly index: number;
      readonly value: number;
      readonly valueTwo: number;
      readonly op: string;
    }[];
  }[];
}

/** One made container of a resource: `<rid>-<8 hex>`. A replace has two, of which one is current. */
export interface Instance {
  readonly id: string;
  readonly rid: Rid;
}

const INSTANCE_ID = /^([a-z2-7]{26})-[0-9a-f]{8}$/;

export function parseInstanceId(text: string): Instance | undefined {
  const rid = INSTANCE_ID.exec(text)?.[1];
  return rid === undefined ? undefined : { id: text, rid };
}

/** Below the pool: root file system, log, exit code and records of an instance. */
export function instancePath(instance: Instance): string {
  return `containers/${instance.id}`;
}

/** What of an instance ends with the machine, and its secrets. */
export function instanceRunFolder(host: ContainerHost, instance: Instance): string {
  return join(host.runFolder, instance.id);
}

/**
 * The runtime's `--root`: our own, so that nobody else's containers are in reach, and in the instance's tmpfs, since
 * some runtimes keep a copy of the bundle's configuration there.
 */
export function runtimeRoot(host: ContainerHost, instance: Instance): string {
  return join(instanceRunFolder(host, instance), 'runtime');
}

/** Cgroup of the instance's processes, in every hierarchy: its own, so that no other is ever killed. */
export function cgroupPath(host: ContainerHost, instance: Instance): string {
  return `/${host.group}/${instance.id}`;
}
