import { appendFile, glob, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Json } from '@hypha/protocol';
import { nodeIdOf } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { composeSals, type Effects, ExecArgs, type Sal, type Sals } from '@hypha/sal';
import { openSimulatedSals } from '@hypha/sal/simulated';
import { type CrashWorld, knownOf, nodeKey, readLabel, withoutNames } from './crash-world.ts';

/** Enough of an image for those who only read its digest. */
const LAYOUT = {
  'oci-layout': { imageLayoutVersion: '1.0.0' },
  'index.json': {
    schemaVersion: 2,
    manifests: [
      {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: `sha256:${'1'.repeat(64)}`,
        size: 1,
        annotations: { 'org.opencontainers.image.ref.name': 'web' },
      },
    ],
  },
} as const;

/** A node that only pretends. */
export class SimulatedWorld implements CrashWorld {
  readonly node = nodeIdOf(nodeVerifier, nodeKey.publicKey);
  readonly signer = nodeKey;
  readonly image: string;
  readonly #records: string;
  readonly #execs: string;

  private constructor(folder: string) {
    this.#records = join(folder, 'records');
    this.#execs = join(folder, 'execs');
    this.image = `oci:${join(folder, 'layout')}:web`;
  }

  static async create(folder: string): Promise<SimulatedWorld> {
    await mkdir(join(folder, 'layout'));
    for (const [name, value] of Object.entries(LAYOUT)) {
      await writeFile(join(folder, 'layout', name), JSON.stringify(value));
    }
    return new SimulatedWorld(folder);
  }

  async open(effects: Effects): Promise<Sals> {
    const { node } = this;
    const { volume, container } = openSimulatedSals({ folder: this.#records, node, effects });
    return composeSals([volume, this.#withExecs(container, effects)]);
  }

  async list(deployment: string): Promise<readonly string[]> {
    const files = await this.#listFiles(deployment);
    const whole = files.filter((file) => file.endsWith('.json'));
    const names = whole.map((file) => withoutNames(file, deployment));
    return names.map((name) => name.replace(/^(volume|container)\/\w+-(\w+)\.json$/, '$1 $2'));
  }

  async readOnce(deployment: string): Promise<readonly string[]> {
    const lines = (await readFile(join(this.#execs, deployment), 'utf8').catch(() => '')).split(
      '\n',
    );
    return lines.filter((line) => line !== '');
  }

  async capture(deployment: string): Promise<Json> {
    const found: Record<string, Json> = {};
    for (const file of await this.#listFiles(deployment)) {
      const text = await readFile(join(this.#records, file), 'utf8').catch(() => undefined);
      if (text === undefined) continue;
      found[withoutNames(file, deployment)] = readLabel(text, deployment);
    }
    return found;
  }

  async close(): Promise<void> {}

  /** Drafts are among them. */
  async #listFiles(deployment: string): Promise<readonly string[]> {
    const files = await Array.fromAsync(glob('**/*.*', { cwd: this.#records }));
    const known = knownOf(deployment);
    return files.filter((file) => known.some(({ rid }) => file.includes(rid)));
  }

  /** A simulated exec has no effect of its own: here it leaves what it would do once. */
  #withExecs(sal: Sal, effects: Effects): Sal {
    const verbs = sal.verbs.map((verb): Sal['verbs'][number] => {
      if (verb.verb !== 'container.exec') return verb;
      return {
        ...verb,
        apply: (context, args, before) =>
          effects.change(async () => {
            const { idempotent, command } = ExecArgs.parse(args);
            await mkdir(this.#execs, { recursive: true });
            if (!idempotent) {
              await appendFile(join(this.#execs, context.deployment), `${command.at(-1)}\n`);
            }
            return await verb.apply(context, args, before);
          }),
      };
    });
    return { ...sal, verbs };
  }
}
