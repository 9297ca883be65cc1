/** What of this machine the SALs can use, for `hypha doctor`, for node facts and for `openSals`. */
import { readFile } from 'node:fs/promises';
import { type CgroupLayout, detectCgroups, findTool, type SalStatus } from '@hypha/sal';
import { type BtrfsTools, detectVolumes } from '@hypha/sal-btrfs';
import { type ContainerMachine, detectContainers } from '@hypha/sal-container';

export interface SalDetection {
  /** True: the real one. Otherwise `reason` says why not. */
  readonly works: boolean;
  /** `btrfs-progs 6.2 …`, `runc 1.1.5 (hybrid cgroups) …`, `none`. */
  readonly driver: string;
  readonly reason?: string;
  /** What to do about it, as a command where there is one. */
  readonly hint?: string;
}

export interface MachineReport {
  readonly isRoot: boolean;
  readonly cgroups: CgroupLayout;
  /** False when the kernel has IPv6 switched off for new interfaces. */
  readonly hasIpv6: boolean;
  readonly tools: readonly ToolReport[];
  readonly volume: SalDetection;
  readonly container: SalDetection;
}

export interface ToolReport {
  readonly name: string;
  /** Null when it is not installed. */
  readonly path: string | null;
  /** Debian package it comes in. */
  readonly package: string;
}

/** A report with what the adapters need to be opened. */
export interface Machine {
  readonly report: MachineReport;
  readonly btrfsTools: BtrfsTools | undefined;
  readonly containerMachine: ContainerMachine | undefined;
}

type Kind = 'volume' | 'container';

const TOOLS: readonly { name: string; package: string; kinds: readonly Kind[] }[] = [
  { name: 'btrfs', package: 'btrfs-progs', kinds: ['volume'] },
  { name: 'mkfs.btrfs', package: 'btrfs-progs', kinds: ['volume'] },
  { name: 'mount', package: 'mount', kinds: ['volume', 'container'] },
  { name: 'umount', package: 'mount', kinds: ['volume', 'container'] },
  { name: 'losetup', package: 'mount', kinds: ['volume'] },
  { name: 'cp', package: 'coreutils', kinds: ['volume'] },
  { name: 'runc', package: 'runc', kinds: ['container'] },
  { name: 'conmon', package: 'conmon', kinds: ['container'] },
  { name: 'skopeo', package: 'skopeo', kinds: ['container'] },
  { name: 'umoci', package: 'umoci', kinds: ['container'] },
  { name: 'ip', package: 'iproute2', kinds: ['container'] },
];

const IPV6_SWITCH = '/proc/sys/net/ipv6/conf/default/disable_ipv6';

export async function detectMachine(signal: AbortSignal): Promise<MachineReport> {
  return (await inspectMachine(signal)).report;
}

export async function inspectMachine(signal: AbortSignal): Promise<Machine> {
  const [volumes, containers, cgroups, tools, ipv6] = await Promise.all([
    detectVolumes(signal),
    detectContainers(signal),
    detectCgroups(),
    findTools(),
    readFile(IPV6_SWITCH, 'utf8').catch(() => '1'),
  ]);
  const volume = detectionOf(volumes.status, hintFor('volume', tools));
  return {
    report: {
      isRoot: process.getuid?.() === 0,
      cgroups,
      hasIpv6: ipv6.trim() === '0',
      tools,
      volume,
      container: withoutVolumes(
        volume,
        detectionOf(containers.status, hintFor('container', tools)),
      ),
    },
    btrfsTools: volumes.tools,
    containerMachine: containers.machine,
  };
}

async function findTools(): Promise<readonly ToolReport[]> {
  return Promise.all(
    TOOLS.map(async ({ name, package: from }) => {
      return { name, path: (await findTool(name)) ?? null, package: from };
    }),
  );
}

/** One command for all that is missing. */
function hintFor(kind: Kind, tools: readonly ToolReport[]): string | undefined {
  if (process.platform === 'linux' && process.getuid?.() !== 0) return 'run it as root';
  const needed = new Set(TOOLS.filter((tool) => tool.kinds.includes(kind)).map(({ name }) => name));
  const missing = tools.filter(({ name, path }) => path === null && needed.has(name));
  const packages = [...new Set(missing.map((tool) => tool.package))];
  return packages.length === 0 ? undefined : `apt-get install ${packages.join(' ')}`;
}

function detectionOf(status: SalStatus, hint: string | undefined): SalDetection {
  const works = status.state === 'real';
  return {
    works,
    driver: status.driver,
    ...(status.reason === undefined ? {} : { reason: status.reason }),
    ...(works || hint === undefined ? {} : { hint }),
  };
}

/** A container's root file system is a snapshot on the pool of the volumes. */
function withoutVolumes(volume: SalDetection, container: SalDetection): SalDetection {
  if (volume.works || !container.works) return container;
  return {
    works: false,
    driver: container.driver,
    reason: 'containers keep their root file systems where volumes are, and those do not work',
    ...(volume.hint === undefined ? {} : { hint: volume.hint }),
  };
}
