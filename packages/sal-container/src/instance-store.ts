/**
 * What lasts of a node's containers, in the pool: `containers/<rid>-<8 hex>` is one made container (a
 * snapshot of its image with `instance.json`, `run.json`, `log` and `exit/`), and
 * `containers/<rid>.current` says which of a resource's instances is the one.
 *
 * N1  An instance under its name is whole: it is prepared as `.tmp-…` and renamed last.
 * N2  A file's content is on disk before its name is. The names are before the step ends (`sync`), not before it
 *     goes on: that takes about as long as a start.
 * N3  Of the spec there is nothing here but limits and hashes: `env` and `files` are only in the run folder.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HyphaError, type Rid } from '@hypha/protocol';
import {
  DeclaredFields,
  findRecord,
  ResourceLabel,
  removeRecord,
  syncFolder,
  writeDraftRecord,
  writeRecord,
} from '@hypha/sal';
import { z } from 'zod';
import {
  type ContainerHost,
  type Instance,
  instancePath,
  parseInstanceId,
} from './container-host.ts';
import { ImageRecord, imagePath } from './image-store.ts';

export const InstanceRecord = z.strictObject({
  v: z.literal(1),
  label: ResourceLabel,
  /** `sha256` of the image's record. */
  image: z.string(),
  ...DeclaredFields.shape,
});
export type InstanceRecord = z.infer<typeof InstanceRecord>;

/** How often and when an instance was started; counted before the start itself. */
const RunRecord = z.strictObject({
  v: z.literal(1),
  /** Epoch milliseconds. */
  startedAtMs: z.int(),
  /** Restarts since it last ran long enough. */
  restarts: z.int().nonnegative(),
  /** We stopped it, so its end says nothing about it. */
  halted: z.boolean(),
});
export type RunRecord = z.infer<typeof RunRecord>;

const CurrentRecord = z.strictObject({ v: z.literal(1), instance: z.string() });

export interface ExitRecord {
  readonly code: number;
  /** Epoch milliseconds. */
  readonly atMs: number;
}

export class InstanceStore {
  readonly #host: ContainerHost;

  constructor(host: ContainerHost) {
    this.#host = host;
  }

  /** Whole instances of one resource, or of all. */
  async list(rid?: Rid): Promise<readonly Instance[]> {
    const found = (await this.#names()).flatMap((name) => parseInstanceId(name) ?? []);
    return rid === undefined ? found : found.filter((instance) => instance.rid === rid);
  }

  /** Every rid that anything here belongs to, whole or not. */
  async listRids(): Promise<readonly Rid[]> {
    const names = await this.#names();
    const rids = names.flatMap((name) => /^(?:\.tmp-)?([a-z2-7]{26})[-.]/.exec(name)?.[1] ?? []);
    return [...new Set(rids)];
  }

  /** Undefined also when what is marked as current is not there. */
  async findCurrent(rid: Rid): Promise<Instance | undefined> {
    const record = await findRecord(this.#currentPath(rid), CurrentRecord);
    const instance = record === undefined ? undefined : parseInstanceId(record.instance);
    if (instance === undefined) return undefined;
    return (await this.has(instance)) ? instance : undefined;
  }

  /** Durable with the next `sync`. */
  async setCurrent({ id, rid }: Instance): Promise<void> {
    const path = this.#currentPath(rid);
    await this.#host.effects.change(async () => {
      await mkdir(dirname(path), { recursive: true });
      const draft = `${path}.${process.pid}.draft`;
      await writeDraftRecord(draft, { v: 1, instance: id });
      await rename(draft, path);
    });
  }

  /** Has the names of instances and of what is current on disk. */
  async sync(): Promise<void> {
    await syncFolder(this.#host.pool.resolve('containers'));
  }

  async has(instance: Instance): Promise<boolean> {
    return this.#host.pool.isSubvolume(instancePath(instance));
  }

  /** Idempotent. Durable with the next `sync`. The image must be in the pool; throws `E_SAL` when it has just been collected. */
  async create(instance: Instance, record: InstanceRecord, signal: AbortSignal): Promise<void> {
    const { pool, effects } = this.#host;
    if (await this.has(instance)) return;
    const draft = draftPath(instance);
    await pool.deleteSubvolume(draft, signal);
    await pool.snapshot(imagePath(record.image), draft, { readonly: false, signal });
    await effects.change(async () => {
      await mkdir(join(pool.resolve(draft), 'exit'), { recursive: true });
      await writeDraftRecord(join(pool.resolve(draft), 'instance.json'), record);
    });
    await pool.rename(draft, instancePath(instance), { isDurable: false });
  }

  /** Throws `E_SAL` when it is not there. */
  async read(instance: Instance): Promise<InstanceRecord> {
    const record = await findRecord(this.#path(instance, 'instance.json'), InstanceRecord);
    if (record !== undefined) return record;
    throw new HyphaError('E_SAL', `cannot find instance.json of ${instance.id}`);
  }

  /** Replaces the record of one that is there. Durable when it resolves. */
  async write(instance: Instance, record: InstanceRecord): Promise<void> {
    const path = this.#path(instance, 'instance.json');
    await this.#host.effects.change(() => writeRecord(path, record));
  }

  /** What its image says. Throws `E_SAL` when it is not there. */
  async readImage(instance: Instance): Promise<ImageRecord> {
    const image = await findRecord(this.#path(instance, 'image.json'), ImageRecord);
    if (image !== undefined) return image;
    throw new HyphaError('E_SAL', `cannot find image.json of ${instance.id}`);
  }

  /** Undefined when it was never started, or nothing readable is left of the record. */
  async findRun(instance: Instance): Promise<RunRecord | undefined> {
    return findRecord(this.#path(instance, 'run.json'), RunRecord).catch(() => undefined);
  }

  async writeRun(
    instance: Instance,
    run: RunRecord,
    { isDurable }: { isDurable: boolean },
  ): Promise<void> {
    const path = this.#path(instance, 'run.json');
    await this.#host.effects.change(async () => {
      if (isDurable) return writeRecord(path, run);
      await writeFile(`${path}.draft`, JSON.stringify(run), { mode: 0o600 });
      await rename(`${path}.draft`, path);
    });
  }

  /** How its last process ended; undefined while it runs, and when nobody saw the end. */
  async findExit(instance: Instance): Promise<ExitRecord | undefined> {
    const path = this.exitPath(instance);
    const [text, info] = await Promise.all([
      readFile(path, 'utf8').catch(() => undefined),
      stat(path).catch(() => undefined),
    ]);
    if (text === undefined || info === undefined || !/^-?\d+$/.test(text.trim())) return undefined;
    return { code: Number(text), atMs: Math.round(info.mtimeMs) };
  }

  async removeExit(instance: Instance): Promise<void> {
    await rm(this.exitPath(instance), { force: true });
  }

  /** Root file system, log and records. Its processes must have ended. Idempotent. */
  async delete(instance: Instance, signal: AbortSignal): Promise<void> {
    await this.#host.pool.deleteSubvolume(instancePath(instance), signal);
  }

  /** Removes what cut creations and marks of a resource left. */
  async discardDrafts(rid: Rid, signal: AbortSignal): Promise<void> {
    const { pool, effects } = this.#host;
    for (const name of await this.#names()) {
      if (name.startsWith(`.tmp-${rid}-`)) {
        await pool.deleteSubvolume(`containers/${name}`, signal);
      } else if (name.startsWith(`${rid}.current.`)) {
        await effects.change(() => removeRecord(join(pool.resolve('containers'), name)));
      }
    }
  }

  /** Forgets which instance is current: the last of all that is removed. */
  async clearCurrent(rid: Rid): Promise<void> {
    const path = this.#currentPath(rid);
    const isThere = (await findRecord(path, CurrentRecord)) !== undefined;
    if (isThere) await this.#host.effects.change(() => removeRecord(path));
  }

  /** Absolute path of the instance's subvolume. */
  folder(instance: Instance): string {
    return this.#host.pool.resolve(instancePath(instance));
  }

  logPath(instance: Instance): string {
    return this.#path(instance, 'log');
  }

  exitFolder(instance: Instance): string {
    return this.#path(instance, 'exit');
  }

  exitPath(instance: Instance): string {
    return join(this.exitFolder(instance), instance.id);
  }

  #path(instance: Instance, name: string): string {
    return join(this.folder(instance), name);
  }

  #currentPath(rid: Rid): string {
    return join(this.#host.pool.resolve('containers'), `${rid}.current`);
  }

  async #names(): Promise<readonly string[]> {
    return readdir(this.#host.pool.resolve('containers')).catch(() => []);
  }
}

/**
 * The instance that a step makes: the same for the same step, another for any other, so a step finds
 * its own half-made work and never takes an older one for it.
 */
export function instanceOf(label: ResourceLabel, image: string): Instance {
  const text = [label.specHash, image, label.createdBy].join('\n');
  const hash = createHash('sha256').update(text).digest('hex');
  return { id: `${label.rid}-${hash.slice(0, 8)}`, rid: label.rid };
}

function draftPath({ id }: Instance): string {
  return `containers/.tmp-${id}`;
}
