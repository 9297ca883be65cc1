/** The pool image's mount and loop device, found by what the kernel says, never by memory. */
import { mkdir, readdir, readFile, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HyphaError } from '@hypha/protocol';
import { commandFailure, type Effects, type RunCommand } from '@hypha/sal';
import type { BtrfsTools } from './btrfs-tools.ts';

/** No devices and no set-uid programs take effect from a pool; programs must, they are in images. */
const MOUNT_OPTIONS = 'nosuid,nodev,noatime';

export const MOUNT_LIMITS = {
  /** How long an unmount is tried again while something that ends still uses the pool. */
  busyMsMax: 5000,
  pollMs: 50,
} as const;

export interface PoolMount {
  /** Absolute path of the image. */
  readonly file: string;
  /** Absolute path; made when absent. */
  readonly mountPoint: string;
}

interface Mounted {
  readonly type: string;
  /** Device. */
  readonly source: string;
  /** Also when the kernel made it so, because it could not write to the disk. */
  readonly isReadonly: boolean;
}

/** True when our image is mounted there. Throws `E_SAL` when something else is. */
export async function isPoolMounted(mount: PoolMount): Promise<boolean> {
  const mounted = await findMount(mount.mountPoint);
  if (mounted === undefined) return false;
  const backing = await findBackingFile(basename(mounted.source));
  if (mounted.type === 'btrfs' && backing === (await realFile(mount.file))) return true;
  throw new HyphaError('E_SAL', `cannot mount the pool at ${mount.mountPoint}: it is taken`, {
    details: mounted,
    hint: 'unmount what is there or choose another state folder',
  });
}

/**
 * Idempotent: a mount that a killed predecessor left is taken over. One that the kernel made read-only, as it does
 * when the disk under the image was full, stays so until it is mounted anew: `E_SAL` while something uses it.
 */
export async function ensurePoolMounted(
  mount: PoolMount,
  deps: { tools: BtrfsTools; effects: Effects; signal: AbortSignal },
): Promise<void> {
  const { tools, effects, signal } = deps;
  await mkdir(mount.mountPoint, { recursive: true, mode: 0o711 });
  if (await isPoolMounted(mount)) {
    if ((await findMount(mount.mountPoint))?.isReadonly !== true) return;
    await unmountPool(mount, deps);
  }
  // Two loop devices over one file would be two caches of one disk: an existing one is used.
  const [device] = await listLoopDevices(mount.file);
  const argv =
    device === undefined
      ? ['-t', 'btrfs', '-o', `loop,${MOUNT_OPTIONS}`, mount.file, mount.mountPoint]
      : ['-t', 'btrfs', '-o', MOUNT_OPTIONS, device, mount.mountPoint];
  await effects.run({ tool: tools.mount, argv, purpose: `mount ${mount.file}`, signal });
}

/** Unmounts, and the loop device goes. Idempotent. Throws `E_SAL` while something uses the pool. */
export async function unmountPool(
  mount: PoolMount,
  deps: { tools: BtrfsTools; effects: Effects; signal: AbortSignal },
): Promise<void> {
  const { tools, effects, signal } = deps;
  const deadline = performance.now() + MOUNT_LIMITS.busyMsMax;
  while (await isPoolMounted(mount)) {
    const isFree = await tryUnmount(effects.run, tools.umount, mount, signal);
    if (!isFree && performance.now() > deadline) throw stillInUse(mount);
    if (!isFree) await pause(signal);
  }
  for (;;) {
    const devices = await listLoopDevices(mount.file);
    if (devices.length === 0) return;
    if (performance.now() > deadline) throw stillInUse(mount);
    for (const device of devices) {
      if (await isAutoclear(device)) continue;
      const purpose = `detach ${device}`;
      await effects.run({ tool: tools.losetup, argv: ['--detach', device], purpose, signal });
    }
    await pause(signal);
  }
}

async function pause(signal: AbortSignal): Promise<void> {
  await sleep(MOUNT_LIMITS.pollMs);
  signal.throwIfAborted();
}

/** Such a device goes by itself soon after its last user. */
async function isAutoclear(device: string): Promise<boolean> {
  const file = `/sys/block/${basename(device)}/loop/autoclear`;
  return (await readFile(file, 'utf8').catch(() => '1')).trim() === '1';
}

async function tryUnmount(
  run: RunCommand,
  umount: string,
  mount: PoolMount,
  signal: AbortSignal,
): Promise<boolean> {
  const purpose = `unmount the pool at ${mount.mountPoint}`;
  try {
    await run({ tool: umount, argv: [mount.mountPoint], purpose, signal });
    return true;
  } catch (error) {
    if (/target is busy/.test(commandFailure(error)?.stderr ?? '')) return false;
    throw error;
  }
}

function stillInUse(mount: PoolMount): HyphaError {
  return new HyphaError('E_SAL', `cannot unmount the pool at ${mount.mountPoint}: it is in use`, {
    hint: 'stop what uses it: fuser -vm shows it',
  });
}

/** The topmost mount at a path. */
async function findMount(mountPoint: string): Promise<Mounted | undefined> {
  const path = await realpath(mountPoint).catch(() => mountPoint);
  const table = await readFile('/proc/self/mountinfo', 'utf8');
  let found: Mounted | undefined;
  for (const line of table.split('\n')) {
    // Source: proc_pid_mountinfo(5). Optional fields end with a lone dash.
    const [head = '', tail = ''] = line.split(' - ');
    const at = head.split(' ')[4];
    const [type, source, options = ''] = tail.split(' ');
    if (at === undefined || type === undefined || source === undefined) continue;
    if (unescapeOctal(at) === path) {
      const isReadonly = options.split(',').includes('ro');
      found = { type, source: unescapeOctal(source), isReadonly };
    }
  }
  return found;
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Loop devices over a file, as device paths. */
export async function listLoopDevices(file: string): Promise<readonly string[]> {
  const path = await realFile(file);
  const names = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'));
  const devices: string[] = [];
  for (const name of names) {
    if ((await findBackingFile(name)) === path) devices.push(join('/dev', name));
  }
  return devices;
}

async function findBackingFile(device: string): Promise<string | undefined> {
  const text = await readFile(`/sys/block/${device}/loop/backing_file`, 'utf8').catch(
    () => undefined,
  );
  return text?.replace(/\n$/, '');
}

function realFile(file: string): Promise<string> {
  return realpath(file).catch(() => file);
}
