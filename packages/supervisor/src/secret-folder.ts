/**
 * Where values of secrets are plaintext: one file each in a tmpfs of the node's run folder, for root alone, never
 * on a disk. Gone after a reboot; then it is filled again.
 */
import { chmod, mkdir, readdir, rename, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import { EFFECTS, findTool, mountTmpfs } from '@hypha/sal';
import { LIMITS } from './supervisor-limits.ts';

const DRAFT = '.draft';

export class SecretFolder {
  readonly #path: string;

  /** @param path absolute; made, with the folder it is in, when the first value is written */
  constructor(path: string) {
    this.#path = path;
  }

  /** Path of a value's file; undefined while it is not there. */
  async find(version: string): Promise<string | undefined> {
    const path = join(this.#path, version);
    return (await this.#isMounted()) && (await exists(path)) ? path : undefined;
  }

  /**
   * Whole or not at all. Everybody may read the file, since a container's user is anybody; only root gets to it,
   * and what it is bound into.
   */
  async write(version: string, bytes: Uint8Array, signal: AbortSignal): Promise<string> {
    await this.#mount(signal);
    const path = join(this.#path, version);
    await writeFile(path + DRAFT, bytes, { mode: 0o600 });
    await chmod(path + DRAFT, 0o444);
    await rename(path + DRAFT, path);
    return path;
  }

  /** Removes every other value. What a container has bound stays in it until it ends. */
  async keepOnly(versions: ReadonlySet<string>): Promise<void> {
    if (!(await this.#isMounted())) return;
    for (const name of await readdir(this.#path)) {
      if (!versions.has(name)) await rm(join(this.#path, name), { force: true });
    }
  }

  /** Takes it away with all that is in it, and the run folder when nothing else is there. Idempotent. */
  async remove(signal: AbortSignal): Promise<void> {
    if (await this.#isMounted()) {
      const tool = await toolOf('umount');
      const purpose = 'unmount the secrets';
      await EFFECTS.run({ tool, argv: ['--', this.#path], purpose, signal });
    }
    for (const folder of [this.#path, dirname(this.#path)]) {
      await rmdir(folder).catch(() => undefined);
    }
  }

  async #mount(signal: AbortSignal): Promise<void> {
    if (await this.#isMounted()) return;
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    await mkdir(this.#path, { recursive: true, mode: 0o700 });
    await mountTmpfs(EFFECTS, this.#path, {
      mount: await toolOf('mount'),
      bytesMax: LIMITS.secretBytesMax,
      flags: ['nosuid', 'nodev', 'noexec'],
      purpose: 'mount a tmpfs for secrets',
      signal,
    });
  }

  /** A folder that merely exists is on a disk. */
  async #isMounted(): Promise<boolean> {
    const [own, parent] = await Promise.all([deviceOf(this.#path), deviceOf(dirname(this.#path))]);
    return own !== undefined && own !== parent;
  }
}

async function deviceOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.dev;
}

async function exists(path: string): Promise<boolean> {
  return (await deviceOf(path)) !== undefined;
}

async function toolOf(name: string): Promise<string> {
  const tool = await findTool(name);
  if (tool !== undefined) return tool;
  throw new HyphaError('E_SAL_UNAVAILABLE', `this node has no ${name}, so no place for secrets`, {
    hint: 'apt-get install mount',
  });
}
