import { z } from 'zod';
import { readKernelFile } from './kernel-file.ts';

/** A process told apart from any later one with the same pid, also across a reboot. */
export const ProcessIdentity = z.strictObject({
  pid: z.int().min(1),
  /** Clock ticks from boot to its start: field 22 of `/proc/<pid>/stat`. */
  startTicks: z.int().nonnegative(),
  bootId: z.string(),
});
export type ProcessIdentity = z.infer<typeof ProcessIdentity>;

/** Undefined when there is no such process, or only its exit code is left of it. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  const text = readKernelFile(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  // The name in parentheses may hold anything, also spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state] = fields;
  if (state === 'Z' || state === 'X') return undefined;
  return { pid, startTicks: Number(fields[19]), bootId: readBootId() };
}

export function isAlive(identity: ProcessIdentity): boolean {
  const now = identifyProcess(identity.pid);
  return now?.startTicks === identity.startTicks && now.bootId === identity.bootId;
}

/** Changes with every boot of the machine. */
export function readBootId(): string {
  return readKernelFile('/proc/sys/kernel/random/boot_id')?.trim() ?? '';
}
