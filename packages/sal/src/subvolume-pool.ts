/**
 * Copy-on-write subtrees of one storage pool: what `sal-btrfs` offers and `sal-container` keeps images
 * and root file systems in, without knowing each other. Paths are relative to the pool, `/` between
 * components of letters, digits, `.`, `_` and `-` that start with none of `-` and (except `.tmp-…`) `.`;
 * any other path is `E_INTERNAL`: user input never becomes a path.
 */
import type { Rid } from '@hypha/protocol';

export interface Subvolume {
  /** Number within the file system, never reused. */
  readonly id: number;
  /** Relative to the pool. */
  readonly path: string;
  readonly uuid: string;
  /** Of the subvolume this is a snapshot of; null for one created empty. */
  readonly parentUuid: string | null;
}

export interface SubvolumePool {
  /** Absolute path of the pool: a mount of a btrfs file system, or a subvolume of one. */
  readonly root: string;
  /** Absolute path of what is at `path`, there or not. */
  resolve(path: string): string;
  /** True only for a subvolume: not for a plain folder, not when absent. */
  isSubvolume(path: string): Promise<boolean>;
  /** Makes an empty one and the plain folders above it. Throws `E_CONFLICT` when `path` exists. */
  createSubvolume(path: string, signal: AbortSignal): Promise<void>;
  /** Takes a snapshot of `source` at `target`. Throws `E_CONFLICT` when `target` exists. */
  snapshot(
    source: string,
    target: string,
    options: { readonly: boolean; signal: AbortSignal },
  ): Promise<void>;
  /**
   * Atomic. Throws `E_CONFLICT` when `target` exists.
   * @param options.isDurable default true: on disk when it resolves
   */
  rename(source: string, target: string, options?: { isDurable: boolean }): Promise<void>;
  /** Removes it and every subvolume inside, deepest first. Absent is fine. */
  deleteSubvolume(path: string, signal: AbortSignal): Promise<void>;
  setReadonly(path: string, readonly: boolean, signal: AbortSignal): Promise<void>;
  isReadonly(path: string, signal: AbortSignal): Promise<boolean>;
  /** Every subvolume below the folder `path` (`''`: of the pool), nested ones too. */
  list(path: string, signal: AbortSignal): Promise<readonly Subvolume[]>;
  /** Throws `E_STORAGE` unless `bytes` more fit with the pool's reserve left over. */
  ensureRoom(bytes: number): Promise<void>;
}

/** Absolute path of a volume's content on this machine, or undefined when there is no such volume. */
export type FindVolumeFolder = (rid: Rid) => Promise<string | undefined>;
