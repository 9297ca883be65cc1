import { HyphaError } from '@hypha/protocol';
import { commandFailure, type Effects } from '@hypha/sal';

/** As tools and the kernel say it with `LC_ALL=C`, also through runc. */
const FULL = /no space left on device|disk quota exceeded/i;
/** A pool is made read-only by the kernel when the disk under it is full. */
const CODES: readonly unknown[] = ['ENOSPC', 'EDQUOT', 'EROFS'];

/** The same effects; what fails because the pool takes no more fails with `E_STORAGE`. */
export function withStorageErrors(effects: Effects): Effects {
  return {
    run: (command) => orStorageError(() => effects.run(command), command.purpose),
    change: (work) => orStorageError(() => effects.change(work), 'write what a container needs'),
  };
}

/** Does `work`, which reads on from `cannot` as `purpose`; `E_STORAGE` when the pool takes no more. */
export async function orStorageError<T>(work: () => Promise<T>, purpose: string): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (!isStorageError(cause)) throw cause;
    const message = `cannot ${purpose}: the pool is full or read-only`;
    throw new HyphaError('E_STORAGE', message, { cause });
  }
}

function isStorageError(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if ('code' in error && CODES.includes(error.code)) return true;
  return FULL.test(commandFailure(error)?.stderr ?? '');
}
