/**
 * Where volumes are kept: what differs between btrfs and the simulation. The meaning of the verbs is in
 * `volume-sal.ts`, once for both.
 */
import { type Rid, Rid as RidSchema } from '@hypha/protocol';
import { z } from 'zod';
import { ResourceLabel } from '../resource-label.ts';
import type { SalStatus } from '../sal.ts';

export const VolumeLabel = ResourceLabel.extend({
  /** The size in force: a shrink waits for the commit of its run (design §10). */
  sizeBytes: z.int().min(1),
  /** The volume it began as a clone of. */
  clonedFrom: RidSchema.nullable(),
});
export type VolumeLabel = z.infer<typeof VolumeLabel>;

export const SnapshotLabel = z.strictObject({
  v: z.literal(1),
  /** Of the volume. */
  rid: RidSchema,
  /** A name from a script, or the id of a run whose undo needs it. */
  name: z.string().regex(/^[a-z0-9][a-z0-9_-]{0,62}$/),
  /** `<run>/<step>` that took it. */
  createdBy: z.string(),
});
export type SnapshotLabel = z.infer<typeof SnapshotLabel>;

/**
 * Longest that one step on a volume may take, milliseconds. Nothing of it depends on how much a volume holds, but
 * every change waits for a commit of the file system, which takes its time under load.
 */
export const VOLUME_STEP_MS_MAX = 300_000;

/**
 * Everything here is idempotent, and atomic where it says so. Rids and snapshot names are the only
 * parts of paths. Throws `E_STORAGE` when the pool is full, `E_SAL` for what else goes wrong.
 */
export interface VolumeDriver {
  readonly status: SalStatus;
  /** Undefined unless the whole volume is there. */
  find(rid: Rid): Promise<VolumeLabel | undefined>;
  /**
   * Atomic: the volume is there with its label, content and limit, or not at all. It must not exist.
   * @param source volume to clone; undefined for an empty one
   */
  create(label: VolumeLabel, source: Rid | undefined, signal: AbortSignal): Promise<void>;
  /** Atomic. The volume must exist. */
  setLabel(label: VolumeLabel, signal: AbortSignal): Promise<void>;
  /** Holds the volume's content to so many bytes, where the driver can. */
  setLimit(rid: Rid, sizeBytes: number, signal: AbortSignal): Promise<void>;
  /** Also what a cut `create` left. Absent is fine. Snapshots stay. */
  delete(rid: Rid, signal: AbortSignal): Promise<void>;
  /** Removes what a cut `create` left, and nothing else. */
  discardDraft(rid: Rid, signal: AbortSignal): Promise<void>;
  /** Throws `E_STORAGE` unless so many bytes more fit. */
  ensureRoom(bytes: number): Promise<void>;
  list(signal: AbortSignal): Promise<readonly VolumeLabel[]>;
  findSnapshot(rid: Rid, name: string): Promise<SnapshotLabel | undefined>;
  /** Atomic, read-only. A whole one of that name must not exist. */
  createSnapshot(label: SnapshotLabel, signal: AbortSignal): Promise<void>;
  /** Also what a cut `createSnapshot` left. Absent is fine. */
  deleteSnapshot(rid: Rid, name: string, signal: AbortSignal): Promise<void>;
  listSnapshots(rid: Rid): Promise<readonly SnapshotLabel[]>;
  /** The volume's content becomes that of the snapshot, in place: what is mounted stays mounted. */
  restore(rid: Rid, name: string, signal: AbortSignal): Promise<void>;
}
