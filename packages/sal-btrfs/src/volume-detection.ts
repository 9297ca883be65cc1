/** Whether this machine can keep volumes on btrfs: looked at, never guessed. */
import { access, readFile } from 'node:fs/promises';
import { EFFECTS, type SalStatus } from '@hypha/sal';
import { type BtrfsTools, findBtrfsTools } from './btrfs-tools.ts';
import { describeDriver } from './quota.ts';

export interface VolumeDetection {
  readonly status: SalStatus;
  /** Undefined unless the status is `real`. */
  readonly tools: BtrfsTools | undefined;
}

/** Debian's package for each tool. */
const PACKAGES: Readonly<Record<string, string>> = {
  btrfs: 'btrfs-progs',
  'mkfs.btrfs': 'btrfs-progs',
  mount: 'mount',
  umount: 'mount',
  losetup: 'mount',
  cp: 'coreutils',
};
/** Bit of `CAP_SYS_ADMIN`: root of a container has none, and cannot mount. */
const CAP_SYS_ADMIN = 1n << 21n;

export async function detectVolumes(signal: AbortSignal): Promise<VolumeDetection> {
  if (process.platform !== 'linux') return unavailable('volumes need Linux');
  if (process.getuid?.() !== 0) return unavailable('volumes need root');
  const found = await findBtrfsTools();
  if (!found.found) {
    const packages = [...new Set(found.missing.map((name) => PACKAGES[name] ?? name))];
    const names = found.missing.join(', ');
    return unavailable(`${names} missing: apt-get install ${packages.join(' ')}`);
  }
  if (!(await canMount())) return unavailable('this root may not mount (no CAP_SYS_ADMIN)');
  if (!(await hasBtrfs())) return unavailable('the kernel has no btrfs');
  if (!(await exists('/dev/loop-control'))) return unavailable('there are no loop devices');
  const { tools } = found;
  const driver = await describeDriver({ btrfs: tools.btrfs, effects: EFFECTS, signal });
  return { status: { state: 'real', driver }, tools };
}

async function canMount(): Promise<boolean> {
  const status = await readFile('/proc/self/status', 'utf8');
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return (BigInt(`0x${mask}`) & CAP_SYS_ADMIN) !== 0n;
}

/** In the kernel, loaded, or a module that the first mount loads. */
async function hasBtrfs(): Promise<boolean> {
  if (/\bbtrfs$/m.test(await readFile('/proc/filesystems', 'utf8'))) return true;
  const release = (await readFile('/proc/sys/kernel/osrelease', 'utf8')).trim();
  const modules = await readFile(`/lib/modules/${release}/modules.dep`, 'utf8').catch(() => '');
  return /\/btrfs\.ko[.\w]*:/.test(modules);
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function unavailable(reason: string): VolumeDetection {
  return { status: { state: 'unavailable', driver: 'none', reason }, tools: undefined };
}
