import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Rid } from '@hypha/protocol';
import type { Effects } from '../effects.ts';
import { findRecord, removeRecord, writeRecord } from '../record-file.ts';
import type { SalStatus } from '../sal.ts';
import { SnapshotLabel, type VolumeDriver, VolumeLabel } from '../volume/volume-driver.ts';

/**
 * Volumes that are records without content: `volume/<rid>.json`, `snapshot/<rid>/<name>.json`. One file
 * is one volume, so every step is atomic.
 */
export class SimulatedVolumes implements VolumeDriver {
  readonly status: SalStatus;
  readonly #folder: string;
  readonly #effects: Effects;

  constructor(options: { folder: string; status: SalStatus; effects: Effects }) {
    this.#folder = options.folder;
    this.status = options.status;
    this.#effects = options.effects;
  }

  find(rid: Rid): Promise<VolumeLabel | undefined> {
    return findRecord(this.#volumeFile(rid), VolumeLabel);
  }

  create(label: VolumeLabel): Promise<void> {
    return this.setLabel(label);
  }

  setLabel(label: VolumeLabel): Promise<void> {
    return this.#effects.change(() => writeRecord(this.#volumeFile(label.rid), label));
  }

  async setLimit(): Promise<void> {}

  delete(rid: Rid): Promise<void> {
    return this.#effects.change(() => removeRecord(this.#volumeFile(rid)));
  }

  async discardDraft(): Promise<void> {}

  async ensureRoom(): Promise<void> {}

  async list(): Promise<readonly VolumeLabel[]> {
    const names = await listRecords(join(this.#folder, 'volume'));
    const labels = await Promise.all(names.map((name) => this.find(Rid.parse(name))));
    return labels.filter((label) => label !== undefined);
  }

  findSnapshot(rid: Rid, name: string): Promise<SnapshotLabel | undefined> {
    return findRecord(this.#snapshotFile(rid, name), SnapshotLabel);
  }

  createSnapshot(label: SnapshotLabel): Promise<void> {
    const file = this.#snapshotFile(label.rid, label.name);
    return this.#effects.change(() => writeRecord(file, label));
  }

  deleteSnapshot(rid: Rid, name: string): Promise<void> {
    return this.#effects.change(() => removeRecord(this.#snapshotFile(rid, name)));
  }

  async listSnapshots(rid: Rid): Promise<readonly SnapshotLabel[]> {
    const names = await listRecords(join(this.#folder, 'snapshot', Rid.parse(rid)));
    const labels = await Promise.all(names.map((name) => this.findSnapshot(rid, name)));
    return labels.filter((label) => label !== undefined);
  }

  async restore(): Promise<void> {}

  #volumeFile(rid: Rid): string {
    return join(this.#folder, 'volume', `${Rid.parse(rid)}.json`);
  }

  #snapshotFile(rid: Rid, name: string): string {
    const part = SnapshotLabel.shape.name.parse(name);
    return join(this.#folder, 'snapshot', Rid.parse(rid), `${part}.json`);
  }
}

/** Names of the records in a folder, without their ending. Drafts of cut writes are none. */
export async function listRecords(folder: string): Promise<readonly string[]> {
  const files = await readdir(folder).catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  });
  return files.filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -5));
}
