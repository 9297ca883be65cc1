import { glob, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Json } from '@hypha/protocol';
import { EFFECTS, type Effects, type Sal } from '@hypha/sal';
import { type ContractWorld, contractRid } from '@hypha/sal/contract';
import { BtrfsPool } from '../btrfs-pool.ts';
import { openBtrfsVolumes } from '../btrfs-sal.ts';
import { openPool } from '../open-pool.ts';
import { getTools, signal } from './scratch-pool.ts';

/** A pool of its own inside the scratch pool: a subvolume is as good as a file system. */
export class VolumeWorld implements ContractWorld {
  static #made = 0;
  readonly name = `world-${++VolumeWorld.#made}`;
  readonly root: string;
  readonly #shared: BtrfsPool;

  private constructor(shared: BtrfsPool) {
    this.#shared = shared;
    this.root = shared.resolve(this.name);
  }

  /** @param shared the scratch pool, open */
  static async create(shared: BtrfsPool): Promise<VolumeWorld> {
    const world = new VolumeWorld(shared);
    await shared.createSubvolume(world.name, signal());
    return world;
  }

  open(effects: Effects): Promise<Sal> {
    return openVolumes(this.root, effects);
  }

  /** Every label and every file of content, drafts included: none may be left. */
  async capture(): Promise<Json> {
    const files: Record<string, Json> = {};
    for await (const path of glob(['**/*', '**/.tmp-*'], { cwd: this.root })) {
      const text = await readFile(join(this.root, path), 'utf8').catch(() => undefined);
      const isLabel = path.endsWith('label.json');
      if (text === undefined && !/^(?:volumes|snapshots)$/.test(path)) files[path] = 'folder';
      else if (text !== undefined) files[path] = isLabel ? withoutLastOp(text) : text;
    }
    return files;
  }

  write(volume: string, text: string): Promise<void> {
    return writeFile(this.#content(volume), text);
  }

  read(volume: string): Promise<string> {
    return readFile(this.#content(volume), 'utf8');
  }

  async close(): Promise<void> {
    await this.#shared.deleteSubvolume(this.name, signal());
  }

  #content(volume: string): string {
    return join(this.root, 'volumes', contractRid('volume', volume), 'data', 'content');
  }
}

/** The volumes of the pool at `root`, as a process that has these effects opens them. */
export async function openVolumes(root: string, effects: Effects): Promise<Sal> {
  const tools = await getTools();
  const config = { type: 'path', path: root } as const;
  const open = await openPool({ config, tools, role: 'owner', effects: EFFECTS, signal: signal() });
  const pool = await openInterrupted(tools.btrfs, open.pool.root, effects);
  return openBtrfsVolumes({ open: { ...open, pool }, cp: tools.cp, effects }).sal;
}

/** Opening reads ids and versions: no crash point worth having. */
async function openInterrupted(btrfs: string, root: string, effects: Effects): Promise<BtrfsPool> {
  const change: Effects['change'] = (work) => effects.change(work);
  const run: Effects['run'] = (command) =>
    command.argv.includes('rootid') ? EFFECTS.run(command) : effects.run(command);
  const options = { root, btrfs, backing: undefined };
  return BtrfsPool.open({ ...options, effects: { run, change } }, signal());
}

function withoutLastOp(text: string): Json {
  const { lastOp, ...label } = JSON.parse(text);
  return label;
}
