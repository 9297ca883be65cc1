import { readFileSync } from 'node:fs';

/**
 * A file of `/proc`, `/sys` or a cgroup; undefined when it is not there. Synchronous, because the kernel
 * answers from memory: the way through a thread would cost more than the read, for every container and
 * every look.
 */
export function readKernelFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
