import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname, uptime } from 'node:os';

/** One boot of the machine. */
export interface Boot {
  /** Another after every reboot, the same until then. */
  readonly bootId: string;
  /** Monotonic since boot, also through sleep, milliseconds. */
  uptimeMs(): number;
}

const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id';

/**
 * Linux names its boots. Elsewhere the id is derived from host and time of boot to the minute: a large step
 * of the wall clock then looks like a reboot, which costs a look at every resource and nothing more.
 */
export async function readBoot(
  nowMs: () => number,
  bootIdFile: string = BOOT_ID_FILE,
): Promise<Boot> {
  const uptimeMs = () => Math.round(uptime() * 1000);
  const named = await readFile(bootIdFile, 'utf8').catch(() => '');
  const bootId = named.trim();
  if (/^[0-9a-f-]{36}$/.test(bootId)) return { bootId, uptimeMs };
  const minute = Math.round((nowMs() - uptimeMs()) / 60_000);
  const hash = createHash('sha256').update(`${hostname()}\0${minute}`).digest('hex');
  return { bootId: `derived-${hash.slice(0, 32)}`, uptimeMs };
}
