import { existsSync } from 'node:fs';
import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { DesiredResource, HyphaError, hex, Name } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { EFFECTS, findRecord, writeRecord } from '@hypha/sal';
import { z } from 'zod';
import { makeFolder } from '../make-folder.ts';

const Past = z.strictObject({
  v: z.literal(1),
  /** Of the newest revision, whatever became of it. */
  generation: z.int().nonnegative(),
  /** What the last one that committed declared. */
  desired: z.array(DesiredResource),
});
export type Past = z.infer<typeof Past>;

const NOTHING: Past = { v: 1, generation: 0, desired: [] };

/** Files that only a fleet's own state folder has. */
const FLEET_FILES = ['context.json', 'genesis.json', 'processes.json'];

/** A folder that stands for a node: what simulated SALs keep, and what each deployment declared last. */
export class SimulatedPlace implements AsyncDisposable {
  readonly #root: string;
  readonly #isKept: boolean;
  /** Changes that SALs have made here, through `effects`. */
  changes = 0;

  private constructor(root: string, isKept: boolean) {
    this.#root = root;
    this.#isKept = isKept;
  }

  /** @param folder kept; absent: a temporary one. Throws `E_CONFLICT` for the state folder of a fleet. */
  static async open(folder?: string): Promise<SimulatedPlace> {
    if (folder === undefined) {
      return new SimulatedPlace(await mkdtemp(join(tmpdir(), 'hypha-simulate-')), false);
    }
    const found = FLEET_FILES.find((file) => existsSync(join(folder, file)));
    if (found !== undefined) {
      throw new HyphaError(
        'E_CONFLICT',
        `${folder} is the state folder of a fleet: it has ${found}`,
        {
          hint: 'name another folder for simulations: --state DIR',
        },
      );
    }
    makeFolder(folder);
    return new SimulatedPlace(folder, true);
  }

  /** Of the SALs. */
  get sals(): string {
    return join(this.#root, 'sals');
  }

  /** What SALs change the folder through. */
  get effects(): typeof EFFECTS {
    return {
      ...EFFECTS,
      change: (change) => {
        this.changes += 1;
        return change();
      },
    };
  }

  async past(realm: string, deployment: string): Promise<Past> {
    return (await findRecord(this.#pastFile(realm, deployment), Past)) ?? NOTHING;
  }

  async remember(realm: string, deployment: string, past: Past): Promise<void> {
    await writeRecord(this.#pastFile(realm, deployment), past);
  }

  /** As it is now, in a temporary folder: what happens there does not happen here. */
  async copy(): Promise<SimulatedPlace> {
    const copy = await SimulatedPlace.open();
    await cp(this.#root, copy.#root, { recursive: true });
    return copy;
  }

  /** Path → hash of all that SALs keep. */
  async snapshot(): Promise<Record<string, string>> {
    if (!existsSync(this.sals)) return {};
    const entries = await readdir(this.sals, { recursive: true, withFileTypes: true });
    const files = entries
      .filter((entry) => entry.isFile() && !entry.name.endsWith('.draft'))
      .map(({ parentPath, name }) => join(parentPath, name));
    const hashes = files.sort().map(async (file) => {
      const hash = hex(nodeVerifier.sha256(await readFile(file)));
      return [relative(this.sals, file), hash] as const;
    });
    return Object.fromEntries(await Promise.all(hashes));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isKept) await rm(this.#root, { recursive: true, force: true });
  }

  #pastFile(realm: string, deployment: string): string {
    return join(this.#root, 'deployments', Name.parse(realm), `${Name.parse(deployment)}.json`);
  }
}
