/**
 * Volumes as subvolumes. `volumes/<rid>` holds the label and the content side by side, so one rename
 * makes or replaces both; only `data` is ever mounted into a container.
 *
 *     volumes/<rid>/label.json            whose it is
 *     volumes/<rid>/data/                 the content
 *     volumes/.tmp-<rid>                  what a cut `create` left
 *     snapshots/<rid>/<name>/             read-only copy of the volume, with snapshot.json
 */
import { chmod, mkdir, readdir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { HyphaError, Rid } from '@hypha/protocol';
import {
  type Effects,
  type FindVolumeFolder,
  findRecord,
  type SalStatus,
  SnapshotLabel,
  type SubvolumePool,
  syncFolder,
  type VolumeDriver,
  VolumeLabel,
  writeDraftRecord,
  writeRecord,
} from '@hypha/sal';
import type { Quota } from './quota.ts';
import { codeOf, withStorageErrors } from './storage-error.ts';

/** Of a volume's root folder: every user of a container may look, root may write. */
const DATA_MODE = 0o755;

/** Copying back the names of a large volume takes its time; the content itself is shared. */
const RESTORE_MS_MAX = 1_800_000;

/** Stops what runs on a volume; whoever keeps it running starts it again later. Idempotent. */
export type StopUsers = (rid: Rid, signal: AbortSignal) => Promise<void>;

export class BtrfsVolumes implements VolumeDriver {
  readonly status: SalStatus;
  readonly #pool: SubvolumePool;
  readonly #quota: Quota;
  readonly #effects: Effects;
  readonly #cp: string;
  readonly #stopUsers: StopUsers;

  constructor(options: {
    pool: SubvolumePool;
    quota: Quota;
    effects: Effects;
    /** Path of the `cp` tool. */
    cp: string;
    driver: string;
    stopUsers: StopUsers;
  }) {
    this.#pool = options.pool;
    this.#quota = options.quota;
    this.#effects = options.effects;
    this.#cp = options.cp;
    this.#stopUsers = options.stopUsers;
    this.status = { state: 'real', driver: options.driver };
  }

  /** See `FindVolumeFolder`. */
  readonly findFolder: FindVolumeFolder = async (rid) => {
    const label = await this.find(rid);
    return label === undefined ? undefined : this.#pool.resolve(`${volumePath(rid)}/data`);
  };

  find(rid: Rid): Promise<VolumeLabel | undefined> {
    return findRecord(this.#pool.resolve(`${volumePath(rid)}/label.json`), VolumeLabel);
  }

  async create(label: VolumeLabel, source: Rid | undefined, signal: AbortSignal): Promise<void> {
    const draft = volumeDraft(label.rid);
    await this.#pool.deleteSubvolume(draft, signal);
    await this.ensureRoom(label.sizeBytes);
    if (source === undefined) {
      await this.#pool.createSubvolume(draft, signal);
      const folder = this.#pool.resolve(`${draft}/data`);
      await this.#change(draft, async () => {
        await mkdir(folder);
        // The umask took from it.
        await chmod(folder, DATA_MODE);
      });
    } else {
      await this.#pool.snapshot(volumePath(source), draft, { readonly: false, signal });
    }
    await this.#change(`write the label of ${draft}`, () =>
      writeDraftRecord(this.#pool.resolve(`${draft}/label.json`), label),
    );
    await this.#quota.setLimit(draft, label.sizeBytes, signal);
    await this.#pool.rename(draft, volumePath(label.rid));
  }

  setLabel(label: VolumeLabel): Promise<void> {
    const path = this.#pool.resolve(`${volumePath(label.rid)}/label.json`);
    return this.#change(`write the label of volume ${label.rid}`, () => writeRecord(path, label));
  }

  setLimit(rid: Rid, sizeBytes: number, signal: AbortSignal): Promise<void> {
    return this.#quota.setLimit(volumePath(rid), sizeBytes, signal);
  }

  async delete(rid: Rid, signal: AbortSignal): Promise<void> {
    await this.discardDraft(rid, signal);
    await this.#pool.deleteSubvolume(volumePath(rid), signal);
  }

  async discardDraft(rid: Rid, signal: AbortSignal): Promise<void> {
    await this.#pool.deleteSubvolume(volumeDraft(rid), signal);
  }

  ensureRoom(bytes: number): Promise<void> {
    return this.#pool.ensureRoom(bytes);
  }

  async list(): Promise<readonly VolumeLabel[]> {
    const names = await this.#names('volumes');
    const rids = names.filter((name) => Rid.safeParse(name).success);
    const labels = await Promise.all(rids.map((rid) => this.find(Rid.parse(rid))));
    return labels.filter((label) => label !== undefined);
  }

  findSnapshot(rid: Rid, name: string): Promise<SnapshotLabel | undefined> {
    return findRecord(
      this.#pool.resolve(`${snapshotPath(rid, name)}/snapshot.json`),
      SnapshotLabel,
    );
  }

  async createSnapshot(label: SnapshotLabel, signal: AbortSignal): Promise<void> {
    const { rid, name } = label;
    const draft = snapshotDraft(rid, name);
    await this.#pool.deleteSubvolume(draft, signal);
    await this.ensureRoom(0);
    await this.#pool.snapshot(volumePath(rid), draft, { readonly: false, signal });
    await this.#change(`write the label of ${draft}`, () =>
      writeDraftRecord(this.#pool.resolve(`${draft}/snapshot.json`), label),
    );
    await this.#pool.setReadonly(draft, true, signal);
    await this.#pool.rename(draft, snapshotPath(rid, name));
  }

  async deleteSnapshot(rid: Rid, name: string, signal: AbortSignal): Promise<void> {
    await this.#pool.deleteSubvolume(snapshotDraft(rid, name), signal);
    await this.#pool.deleteSubvolume(snapshotPath(rid, name), signal);
    await this.#effects.change(() => removeEmptyFolder(this.#pool.resolve(snapshotFolder(rid))));
  }

  async listSnapshots(rid: Rid): Promise<readonly SnapshotLabel[]> {
    const names = await this.#names(snapshotFolder(rid));
    const whole = names.filter((name) => !name.startsWith('.tmp-'));
    const labels = await Promise.all(whole.map((name) => this.findSnapshot(rid, name)));
    return labels.filter((label) => label !== undefined);
  }

  async restore(rid: Rid, name: string, signal: AbortSignal): Promise<void> {
    const from = this.#pool.resolve(`${snapshotPath(rid, name)}/data`);
    const to = this.#pool.resolve(`${volumePath(rid)}/data`);
    const purpose = `restore volume ${rid} from ${name}`;
    // Whoever has a file open would go on with what is no longer in the volume.
    await this.#stopUsers(rid, signal);
    await this.#change(purpose, async () => {
      for (const entry of await readdir(to)) {
        signal.throwIfAborted();
        await rm(join(to, entry), { recursive: true, force: true });
      }
    });
    await withStorageErrors(purpose, () =>
      this.#effects.run({
        tool: this.#cp,
        argv: ['-a', '--reflink=auto', `${from}/.`, to],
        purpose,
        signal,
        timeoutMs: RESTORE_MS_MAX,
      }),
    );
    await syncFolder(to);
    // Nor is one that was started meanwhile to go on: it may have seen half of it.
    await this.#stopUsers(rid, signal);
  }

  async #change(purpose: string, change: () => Promise<void>): Promise<void> {
    await withStorageErrors(purpose, () => this.#effects.change(change));
  }

  async #names(path: string): Promise<readonly string[]> {
    return readdir(this.#pool.resolve(path)).catch((error: unknown) => {
      if (codeOf(error) === 'ENOENT') return [];
      throw new HyphaError('E_SAL', `cannot list ${path} of the pool`, { cause: error });
    });
  }
}

/** A rid is parsed again where it becomes part of a path. */
function volumePath(rid: Rid): string {
  return `volumes/${Rid.parse(rid)}`;
}

function volumeDraft(rid: Rid): string {
  return `volumes/.tmp-${Rid.parse(rid)}`;
}

function snapshotFolder(rid: Rid): string {
  return `snapshots/${Rid.parse(rid)}`;
}

function snapshotPath(rid: Rid, name: string): string {
  return `${snapshotFolder(rid)}/${SnapshotLabel.shape.name.parse(name)}`;
}

function snapshotDraft(rid: Rid, name: string): string {
  return `${snapshotFolder(rid)}/.tmp-${SnapshotLabel.shape.name.parse(name)}`;
}

async function removeEmptyFolder(path: string): Promise<void> {
  await rmdir(path).catch((error: unknown) => {
    if (codeOf(error) !== 'ENOENT' && codeOf(error) !== 'ENOTEMPTY') throw error;
  });
}
