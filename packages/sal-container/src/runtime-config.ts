/** The OCI runtime configuration (runtime-spec 1.0) of an instance, from safe defaults. Pure. */
import type { Json } from '@hypha/protocol';
import { HyphaError } from '@hypha/protocol';
import type { Allowance, ContainerSpec, ResourceLabel } from '@hypha/sal';
import { CAPABILITIES } from './capabilities.ts';
import type { SeccompProfile } from './container-host.ts';
import type { ImageRecord } from './image-store.ts';
import { numericUser, type ProcessUser } from './image-user.ts';

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const CPU_PERIOD_US = 100_000;
const CPU_SHARES_PER_CORE = 1024;
const CPU_SHARES_MIN = 2;

/** Of the kernel's own interfaces, what a container must not read, or only read: Docker's lists. */
const MASKED_PATHS = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];
const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

const SYSTEM_MOUNTS: readonly OciMount[] = [
  { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
  {
    destination: '/dev',
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
  },
  {
    destination: '/dev/pts',
    type: 'devpts',
    source: 'devpts',
    options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
  },
  {
    destination: '/dev/shm',
    type: 'tmpfs',
    source: 'shm',
    options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'],
  },
  {
    destination: '/dev/mqueue',
    type: 'mqueue',
    source: 'mqueue',
    options: ['nosuid', 'noexec', 'nodev'],
  },
  {
    destination: '/sys',
    type: 'sysfs',
    source: 'sysfs',
    options: ['nosuid', 'noexec', 'nodev', 'ro'],
  },
];

interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** A file or folder of the node and where the container sees it. */
export interface BindMount {
  readonly source: string;
  readonly destination: string;
}

export interface RuntimeConfigInput {
  readonly label: ResourceLabel;
  readonly spec: ContainerSpec;
  /** `env` of the spec with the values of its secrets. */
  readonly env: Readonly<Record<string, string>>;
  readonly image: ImageRecord;
  /** Absolute path of the root file system. */
  readonly rootfs: string;
  readonly namespacePath: string;
  readonly cgroupPath: string;
  /** Bound read-only. */
  readonly files: readonly BindMount[];
  readonly volumes: readonly BindMount[];
  readonly seccomp: SeccompProfile | null;
  readonly limitsSwap: boolean;
}

/** Throws `E_ARGUMENT` when neither spec nor image say what to run. */
export function buildRuntimeConfig(input: RuntimeConfigInput): Json {
  const { label, spec, image } = input;
  const args = spec.command ?? [...image.entrypoint, ...image.command];
  if (args.length === 0) {
    throw new HyphaError('E_ARGUMENT', `container ${label.name} has no command`, {
      where: { path: 'command' },
      hint: 'the image names none: set command in the spec',
    });
  }
  return {
    ociVersion: '1.0.2',
    process: buildProcess(input, args),
    root: { path: input.rootfs, readonly: spec.readonly },
    hostname: label.name,
    mounts: [
      ...SYSTEM_MOUNTS.map((mount) => ({ ...mount })),
      ...input.volumes.map((mount) => bindMount(mount, ['rbind', 'rw', 'nosuid', 'nodev'])),
      ...input.files.map((mount) => bindMount(mount, ['bind', 'ro', 'nosuid', 'nodev'])),
    ],
    annotations: annotationsOf(label),
    linux: {
      namespaces: [
        { type: 'pid' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'mount' },
        { type: 'network', path: input.namespacePath },
      ],
      cgroupsPath: input.cgroupPath,
      resources: resourcesOf(spec, input.limitsSwap),
      // The namespace is the container's own, so a port below 1024 is nobody else's.
      sysctl: { 'net.ipv4.ip_unprivileged_port_start': '0' },
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READONLY_PATHS,
      ...(input.seccomp === null ? {} : { seccomp: seccompJson(input.seccomp) }),
    },
  };
}

/** `process` of the configuration, and of an `exec` into the container. */
export function buildProcess(
  input: Pick<RuntimeConfigInput, 'label' | 'spec' | 'env' | 'image'>,
  args: readonly string[],
): Json {
  const { label, spec, image } = input;
  const user = userOf(spec, image);
  const held = user.uid === 0 ? CAPABILITIES : [];
  return {
    terminal: false,
    user: {
      uid: user.uid,
      gid: user.gid,
      additionalGids: user.additionalGids,
      // Else it has that of whoever started the runtime.
      umask: 0o022,
    },
    args,
    env: buildEnv(input.env, image, label.name),
    cwd: spec.workdir ?? image.workdir,
    capabilities: { bounding: CAPABILITIES, effective: held, permitted: held },
    noNewPrivileges: true,
    // Nothing is raised: that takes a capability which not every root has.
    rlimits: [{ type: 'RLIMIT_CORE', hard: 0, soft: 0 }],
  };
}

export function userOf(spec: ContainerSpec, image: ImageRecord): ProcessUser {
  return spec.user === undefined ? image.user : numericUser(spec.user);
}

function buildEnv(
  env: RuntimeConfigInput['env'],
  image: ImageRecord,
  hostname: string,
): readonly string[] {
  const variables = new Map<string, string>();
  for (const entry of [DEFAULT_PATH, `HOSTNAME=${hostname}`, ...image.env]) {
    const equals = entry.indexOf('=');
    if (equals > 0) variables.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  for (const [name, value] of Object.entries(env)) variables.set(name, value);
  return [...variables].map(([name, value]) => `${name}=${value}`);
}

/** Of a runtime's `update`: what `resources` of the configuration says, for a container that is there. */
export function updateArguments(
  allowance: Allowance,
  options: { limitsSwap: boolean },
): readonly string[] {
  const { period, quota, shares } = cpuOf(allowance);
  return [
    ...['--cpu-period', String(period), '--cpu-quota', String(quota)],
    ...['--cpu-share', String(shares), '--memory', String(allowance.memory)],
    ...(options.limitsSwap ? ['--memory-swap', String(allowance.memory)] : []),
    ...['--pids-limit', String(allowance.pids)],
  ];
}

function cpuOf({ cpus }: Allowance): { period: number; quota: number; shares: number } {
  return {
    period: CPU_PERIOD_US,
    quota: Math.round(cpus * CPU_PERIOD_US),
    shares: Math.max(CPU_SHARES_MIN, Math.round(cpus * CPU_SHARES_PER_CORE)),
  };
}

function resourcesOf(spec: Allowance, limitsSwap: boolean): Json {
  return {
    cpu: cpuOf(spec),
    // `swap` is memory and swap together: none of it is swap.
    memory: { limit: spec.memory, ...(limitsSwap ? { swap: spec.memory } : {}) },
    pids: { limit: spec.pids },
    devices: [{ allow: false, access: 'rwm' }],
  };
}

function annotationsOf(label: ResourceLabel): Json {
  return {
    'hypha.rid': label.rid,
    'hypha.realm': label.realm,
    'hypha.deployment': label.deployment,
    'hypha.name': label.name,
    'hypha.createdBy': label.createdBy,
    'hypha.lastOp': label.lastOp,
    'hypha.specHash': label.specHash,
  };
}

function bindMount({ source, destination }: BindMount, options: readonly string[]): Json {
  return { destination, type: 'bind', source, options };
}

function seccompJson(profile: SeccompProfile): Json {
  const { syscalls, ...rest } = profile;
  return {
    ...rest,
    syscalls: syscalls.map(({ args, ...rule }) => ({
      ...rule,
      ...(args === undefined ? {} : { args: args.map((arg) => ({ ...arg })) }),
    })),
  };
}
