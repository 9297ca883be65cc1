import { lstat, mkdir, readdir, realpath, rename, rm, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import {
  type CommandResult,
  commandFailure,
  type Effects,
  type Subvolume,
  type SubvolumePool,
  syncFolder,
} from '@hypha/sal';
import { codeOf, withStorageErrors } from './storage-error.ts';
import { parseSubvolumes } from './subvolume-list.ts';

const BTRFS_MAGIC = 0x9123683e;
/** Inode number of the root of every subvolume. */
const SUBVOLUME_INODE = 256;
const COMPONENT = /^(?:\.tmp-)?[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

export const POOL_LIMITS = {
  /** Part of the pool that stays free, so that deleting still works when it is full. */
  reserveRatio: 0.05,
  reserveBytesMax: 1024 ** 3,
  /** A snapshot or delete waits for a commit of the file system under load. */
  commandMsMax: 120_000,
} as const;

/**
 * A pool that is open: a mounted btrfs file system or a subvolume of one. Holds no state, so the
 * processes of a node may each have one of the same pool. See `SubvolumePool` for what each call does.
 */
export class BtrfsPool implements SubvolumePool {
  readonly root: string;
  readonly #btrfs: string;
  readonly #effects: Effects;
  readonly #rootId: number;
  /** Folder of the image file: the pool is sparse, so the space under it counts as well. */
  readonly #backing: string | undefined;

  private constructor(options: PoolOptions & { rootId: number }) {
    this.root = options.root;
    this.#btrfs = options.btrfs;
    this.#effects = options.effects;
    this.#rootId = options.rootId;
    this.#backing = options.backing;
  }

  /** Throws `E_SAL` unless `root` is the root of a subvolume. */
  static async open(options: PoolOptions, signal: AbortSignal): Promise<BtrfsPool> {
    const { root, btrfs, effects } = options;
    const info = await statfs(root).catch(() => undefined);
    if (info?.type !== BTRFS_MAGIC || !(await isSubvolumeRoot(root))) {
      throw new HyphaError('E_SAL', `${root} is not a btrfs subvolume`, {
        hint: 'name a mounted btrfs file system, or: btrfs subvolume create PATH',
      });
    }
    const { stdout } = await effects.run({
      tool: btrfs,
      argv: ['inspect-internal', 'rootid', root],
      purpose: `read the subvolume id of ${root}`,
      signal,
    });
    return new BtrfsPool({ ...options, rootId: Number(stdout.trim()) });
  }

  resolve(path: string): string {
    if (!path.split('/').every((part) => COMPONENT.test(part))) {
      throw new HyphaError('E_INTERNAL', `not a path inside the pool: ${JSON.stringify(path)}`);
    }
    return join(this.root, path);
  }

  isSubvolume(path: string): Promise<boolean> {
    return isSubvolumeRoot(this.resolve(path));
  }

  async createSubvolume(path: string, signal: AbortSignal): Promise<void> {
    const target = await this.#prepareTarget(path);
    await this.#run(`create subvolume ${path}`, ['subvolume', 'create', target], signal);
  }

  async snapshot(
    source: string,
    target: string,
    options: { readonly: boolean; signal: AbortSignal },
  ): Promise<void> {
    // An existing folder would get the snapshot inside it: the classic trap of this command.
    const to = await this.#prepareTarget(target);
    const flags = options.readonly ? ['-r'] : [];
    const argv = ['subvolume', 'snapshot', ...flags, this.resolve(source), to];
    await this.#run(`snapshot ${source} as ${target}`, argv, options.signal);
  }

  async rename(source: string, target: string, { isDurable } = { isDurable: true }): Promise<void> {
    const from = this.resolve(source);
    const to = await this.#prepareTarget(target);
    await withStorageErrors(`rename ${source} to ${target}`, () =>
      this.#effects.change(() => rename(from, to)),
    );
    if (!isDurable) return;
    // A rename of a subvolume makes the next sync of its folder commit the whole file system.
    await syncFolder(dirname(to));
    if (dirname(from) !== dirname(to)) await syncFolder(dirname(from));
  }

  async deleteSubvolume(path: string, signal: AbortSignal): Promise<void> {
    const target = this.resolve(path);
    if (!(await exists(target))) return;
    if (!(await this.isSubvolume(path))) {
      throw new HyphaError('E_SAL', `cannot delete ${path}: it is not a subvolume`);
    }
    if (!(await this.#tryDelete(target, signal))) {
      await this.#deleteNested(path, signal);
      if (!(await this.#tryDelete(target, signal))) {
        // Whatever still is inside has a name that no list can tell.
        await this.#effects.change(() => emptyFolder(target));
        await this.#run(`delete subvolume ${path}`, ['subvolume', 'delete', target], signal);
      }
    }
    await syncFolder(dirname(target));
  }

  async setReadonly(path: string, readonly: boolean, signal: AbortSignal): Promise<void> {
    const argv = ['property', 'set', '-t', 'subvol', this.resolve(path), 'ro', String(readonly)];
    await this.#run(`make ${path} ${readonly ? 'read-only' : 'writable'}`, argv, signal);
  }

  async isReadonly(path: string, signal: AbortSignal): Promise<boolean> {
    const argv = ['property', 'get', '-t', 'subvol', this.resolve(path), 'ro'];
    const { stdout } = await this.#run(`read the flags of ${path}`, argv, signal);
    return stdout.trim() === 'ro=true';
  }

  async list(path: string, signal: AbortSignal): Promise<readonly Subvolume[]> {
    if (path !== '') this.resolve(path);
    const argv = ['subvolume', 'list', '-u', '-q', '-p', this.root];
    const { stdout } = await this.#run('list subvolumes', argv, signal);
    const subvolumes = parseSubvolumes(stdout, this.#rootId);
    return path === ''
      ? subvolumes
      : subvolumes.filter((subvolume) => subvolume.path.startsWith(`${path}/`));
  }

  async ensureRoom(bytes: number): Promise<void> {
    const { freeBytes, sizeBytes } = await this.usage();
    const { reserveRatio, reserveBytesMax } = POOL_LIMITS;
    const reserve = Math.min(sizeBytes * reserveRatio, reserveBytesMax);
    if (freeBytes - reserve >= bytes) return;
    throw new HyphaError('E_STORAGE', `the pool at ${this.root} has no room for ${bytes} bytes`, {
      details: { freeBytes, reserveBytes: Math.round(reserve), sizeBytes },
    });
  }

  /** Of the pool; free is what both it and the disk under its image still take. */
  async usage(): Promise<{ sizeBytes: number; freeBytes: number }> {
    const pool = await statfs(this.root);
    const under = this.#backing === undefined ? undefined : await statfs(this.#backing);
    const freeUnder = under === undefined ? Number.POSITIVE_INFINITY : under.bavail * under.bsize;
    return {
      sizeBytes: pool.blocks * pool.bsize,
      freeBytes: Math.min(pool.bavail * pool.bsize, freeUnder),
    };
  }

  async #prepareTarget(path: string): Promise<string> {
    const target = this.resolve(path);
    if (await exists(target)) {
      throw new HyphaError('E_CONFLICT', `${path} exists in the pool at ${this.root}`);
    }
    await withStorageErrors(`make the folders of ${path}`, () =>
      mkdir(dirname(target), { recursive: true, mode: 0o711 }),
    );
    return target;
  }

  /** False when something nested is in the way. */
  async #tryDelete(target: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#run(`delete subvolume ${target}`, ['subvolume', 'delete', target], signal);
      return true;
    } catch (error) {
      const failure = commandFailure(error);
      if (failure !== undefined && /Directory not empty/.test(failure.stderr)) return false;
      throw error;
    }
  }

  /** Deepest first. What was made inside a volume or container has names of its maker's choice. */
  async #deleteNested(path: string, signal: AbortSignal): Promise<void> {
    const nested = [...(await this.list(path, signal))].sort(
      (one, other) => other.path.split('/').length - one.path.split('/').length,
    );
    const targets: string[] = [];
    for (const { path: inner } of nested) {
      const target = join(this.root, inner);
      const isReal = (await realpath(dirname(target)).catch(() => '')) === dirname(target);
      if (isReal && (await isSubvolumeRoot(target))) targets.push(target);
    }
    // Nothing can be deleted out of a read-only one.
    for (const target of [...targets, this.resolve(path)]) {
      const argv = ['property', 'set', '-f', '-t', 'subvol', target, 'ro', 'false'];
      await this.#run(`make ${target} writable`, argv, signal);
    }
    for (const target of targets) {
      await this.#run(`delete subvolume ${target}`, ['subvolume', 'delete', target], signal);
    }
  }

  #run(purpose: string, argv: readonly string[], signal: AbortSignal): Promise<CommandResult> {
    const timeoutMs = POOL_LIMITS.commandMsMax;
    return withStorageErrors(purpose, () =>
      this.#effects.run({ tool: this.#btrfs, argv, purpose, signal, timeoutMs }),
    );
  }
}

export interface PoolOptions {
  /** Absolute, without symbolic links. */
  readonly root: string;
  /** Path of the `btrfs` tool. */
  readonly btrfs: string;
  readonly effects: Effects;
  readonly backing: string | undefined;
}

async function isSubvolumeRoot(path: string): Promise<boolean> {
  const info = await lstat(path).catch(ignoreAbsent);
  return info?.isDirectory() === true && info.ino === SUBVOLUME_INODE;
}

async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(ignoreAbsent)) !== undefined;
}

/** Since Linux 4.18 removing the folder of an empty subvolume removes the subvolume. */
async function emptyFolder(path: string): Promise<void> {
  for (const name of await readdir(path)) {
    await rm(join(path, name), { recursive: true, force: true });
  }
}

function ignoreAbsent(error: unknown): undefined {
  if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
  throw error;
}
