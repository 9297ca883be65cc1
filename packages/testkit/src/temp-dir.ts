import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface TempDir extends AsyncDisposable {
  readonly path: string;
}

/** A folder that is gone at the end of its scope. Throws then when something is still mounted in it. */
export async function openTempDir(name = 'test'): Promise<TempDir> {
  // Short: a unix socket's path holds 107 bytes.
  const path = await mkdtemp(join(tmpdir(), `hy-${name}-`));
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      const mounts = (await readFile('/proc/self/mounts', 'utf8').catch(() => ''))
        .split('\n')
        .flatMap((line) => line.split(' ')[1] ?? [])
        .filter((mount) => mount === path || mount.startsWith(`${path}/`));
      // Removing a folder with a mount inside would remove what is mounted.
      if (mounts.length > 0) throw new Error(`still mounted: ${mounts.join(', ')}`);
      await rm(path, { recursive: true, force: true, maxRetries: 3 });
    },
  };
}
