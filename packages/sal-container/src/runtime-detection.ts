/**
 * Whether this machine can run containers, and with what: looked at, never guessed from a distribution's
 * name. runc runs with limits on cgroup v1, hybrid and v2; crun only on v2 (it refuses a hybrid).
 */
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CgroupLayout, detectCgroups, findTool, runCommand, type SalStatus } from '@hypha/sal';
import type { ContainerHost, ContainerTools } from './container-host.ts';
import { loadSeccompProfile } from './seccomp-profile.ts';

/** What of a host is the machine's. */
export type ContainerMachine = Pick<ContainerHost, 'tools' | 'cgroups' | 'seccomp' | 'limitsSwap'>;

export interface ContainerDetection {
  readonly status: SalStatus;
  /** Undefined unless the status is `real`. */
  readonly machine: ContainerMachine | undefined;
}

/** Debian's package for each tool. */
const PACKAGES: Readonly<Record<string, string>> = {
  runc: 'runc',
  conmon: 'conmon',
  skopeo: 'skopeo',
  umoci: 'umoci',
  ip: 'iproute2',
  mount: 'mount',
  umount: 'mount',
};
const CONTROLLERS = ['cpu', 'memory', 'pids'] as const;
const CGROUPS = '/sys/fs/cgroup';
const IPV6_SWITCH = '/proc/sys/net/ipv6/conf/default/disable_ipv6';

export async function detectContainers(signal: AbortSignal): Promise<ContainerDetection> {
  if (process.platform !== 'linux') return unavailable('containers need Linux');
  if (process.getuid?.() !== 0) return unavailable('containers need root');
  const cgroups = await detectCgroups();
  const runtime = await findRuntime(cgroups);
  const tools = await findTools(runtime);
  if (Array.isArray(tools)) {
    const packages = [...new Set(tools.map((tool) => PACKAGES[tool] ?? tool))].join(' ');
    return unavailable(`${tools.join(', ')} missing: apt-get install ${packages}`);
  }
  const missing = await findMissingControllers(cgroups);
  if (missing.length > 0) {
    return unavailable(`the kernel offers no cgroup controller for ${missing.join(', ')}`);
  }
  const disabled = await readFile(IPV6_SWITCH, 'utf8').catch(() => '1');
  if (disabled.trim() !== '0') return unavailable('IPv6 is switched off in the kernel');
  const seccomp = await loadSeccompProfile();
  const limitsSwap = await canLimitSwap(cgroups);
  const driver = await describe(tools, cgroups, seccomp !== null, signal);
  return {
    status: { state: 'real', driver },
    machine: { tools, cgroups, seccomp, limitsSwap },
  };
}

async function findRuntime({ layout }: CgroupLayout): Promise<string | undefined> {
  const runc = await findTool('runc');
  return runc ?? (layout === 'unified' ? await findTool('crun') : undefined);
}

/** The names of the missing ones, if any is. */
async function findTools(runtime: string | undefined): Promise<ContainerTools | string[]> {
  const names = ['conmon', 'skopeo', 'umoci', 'ip', 'mount', 'umount'] as const;
  const found = await Promise.all(names.map((name) => findTool(name)));
  const missing = names.filter((_, index) => found[index] === undefined);
  const [conmon = '', skopeo = '', umoci = '', ip = '', mount = '', umount = ''] = found;
  if (runtime === undefined) return ['runc', ...missing];
  if (missing.length > 0) return [...missing];
  return { runtime, conmon, skopeo, umoci, ip, mount, umount };
}

async function findMissingControllers({ layout, cgroup2 }: CgroupLayout): Promise<string[]> {
  if (layout === 'unified' && cgroup2 !== undefined) {
    const text = await readFile(join(cgroup2, 'cgroup.controllers'), 'utf8');
    const offered = text.trim().split(' ');
    return CONTROLLERS.filter((controller) => !offered.includes(controller));
  }
  const folders = CONTROLLERS.map(async (controller) =>
    (await exists(join(CGROUPS, controller, 'cgroup.procs'))) ? [] : [controller],
  );
  return (await Promise.all(folders)).flat();
}

async function canLimitSwap({ layout }: CgroupLayout): Promise<boolean> {
  if (layout === 'unified') return true;
  return exists(join(CGROUPS, 'memory', 'memory.memsw.limit_in_bytes'));
}

/** `runc 1.1.5 (hybrid cgroups), conmon 2.1.6, skopeo 1.9.3, umoci 0.4.7`. */
async function describe(
  tools: ContainerTools,
  { layout }: CgroupLayout,
  hasSeccomp: boolean,
  signal: AbortSignal,
): Promise<string> {
  const name = tools.runtime.split('/').at(-1) ?? 'runc';
  const versions = await Promise.all(
    [tools.runtime, tools.conmon, tools.skopeo, tools.umoci].map((tool) =>
      readVersion(tool, signal),
    ),
  );
  const cgroups = layout === 'v1' ? 'cgroups v1' : `${layout} cgroups`;
  return [
    `${name} ${versions[0]} (${cgroups})`,
    `conmon ${versions[1]}`,
    `skopeo ${versions[2]}`,
    `umoci ${versions[3]}`,
    ...(hasSeccomp ? [] : ['no seccomp profile']),
  ].join(', ');
}

async function readVersion(tool: string, signal: AbortSignal): Promise<string> {
  const purpose = `read the version of ${tool}`;
  const { stdout } = await runCommand({ tool, argv: ['--version'], purpose, signal });
  return /\d+\.\d+(?:\.\d+)?/.exec(stdout)?.[0] ?? 'of unknown version';
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function unavailable(reason: string): ContainerDetection {
  return { status: { state: 'unavailable', driver: 'none', reason }, machine: undefined };
}
