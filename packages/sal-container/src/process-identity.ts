import { readFile } from 'node:fs/promises';
import { z } from 'zod';

/** A process told apart from any later one with the same pid, also across a reboot. */
export const ProcessIdentity = z.strictObject({
  pid: z.int().min(1),
  /** Clock ticks from boot to its start: field 22 of `/proc/<pid>/stat`. */
  startTicks: z.int().nonnegative(),
  bootId: z.string(),
});
export type ProcessIdentity = z.infer<typeof ProcessIdentity>;

/** Undefined when there is no such process, or only its exit code is left of it. */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  // The name in parentheses may hold anything, also spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state] = fields;
  if (state === 'Z' || state === 'X') return undefined;
  return { pid, startTicks: Number(fields[19]), bootId: await readBootId() };
}

export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  const now = await identifyProcess(identity.pid);
  return now?.startTicks === identity.startTicks && now.bootId === identity.bootId;
}

/** Changes with every boot of the machine. */
export async function readBootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}
