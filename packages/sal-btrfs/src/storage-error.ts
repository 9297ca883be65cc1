import { HyphaError } from '@hypha/protocol';
import { commandFailure } from '@hypha/sal';

/** As btrfs-progs, coreutils and the kernel say it with `LC_ALL=C`. */
const FULL = /No space left on device|Disk quota exceeded/;

/** Does `work`; an error that means "full" becomes `E_STORAGE`, any other is thrown as it is. */
export async function withStorageErrors<T>(purpose: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (!isFull(cause)) throw cause;
    throw new HyphaError('E_STORAGE', `cannot ${purpose}: the pool or its quota is full`, {
      cause,
    });
  }
}

function isFull(error: unknown): boolean {
  const failure = commandFailure(error);
  if (failure !== undefined) return FULL.test(failure.stderr);
  return codeOf(error) === 'ENOSPC' || codeOf(error) === 'EDQUOT';
}

/** `ENOENT` and the like; undefined for what is no system error. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
