/**
 * Volumes that are folders and count what is done to them, in two effects with a tool of its own between
 * them, which can be made to take for ever. On disk, so that they outlive the runner. Tests only.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { appendFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import { composeSals, defineVerb, NO_USE, type Sals, type StepContext } from '@hypha/sal';
import { z } from 'zod';

const VolumeArgs = z.strictObject({ size: z.int(), broken: z.boolean().default(false) });
type VolumeArgs = z.infer<typeof VolumeArgs>;

export class CountedVolumes {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** `make a`, `finish a`, `undo a` … in the order they happened. */
  effects(): string[] {
    const path = join(this.#folder, 'effects');
    return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : [];
  }

  /** The next apply on this volume stops half way, with its tool running, until let go. */
  async hold(name: string): Promise<void> {
    await mkdir(this.#folder, { recursive: true });
    await writeFile(join(this.#folder, `hold-${name}`), '');
  }
  async letGo(name: string): Promise<void> {
    await rm(join(this.#folder, `hold-${name}`), { force: true });
  }
  async letGoAll(): Promise<void> {
    const names = existsSync(this.#folder) ? readdirSync(this.#folder) : [];
    for (const name of names.filter((each) => each.startsWith('hold-'))) {
      await rm(join(this.#folder, name));
    }
  }
  /** Pid of the tool that runs half way through an apply. */
  heldBy(name: string): number | undefined {
    const path = join(this.#folder, `held-${name}`);
    if (!existsSync(path)) return undefined;
    const text = readFileSync(path, 'utf8');
    return text === '' ? undefined : Number(text);
  }
  exists(name: string): boolean {
    return existsSync(join(this.#folder, 'volumes', name, 'whole'));
  }

  sals(): Sals {
    const never = async () => Promise.reject(new Error('not for a runner'));
    const resource = {
      kind: 'volume',
      observe: never,
      converge: never,
      remove: never,
      list: never,
    };
    const status = { state: 'simulated', driver: 'counted' } as const;
    return composeSals([{ kind: 'volume', status, verbs: [this.#ensure()], resource }]);
  }

  #ensure() {
    return defineVerb<VolumeArgs>({
      verb: 'volume.ensure',
      class: 'ensure',
      capability: 'volume',
      kind: 'volume',
      parse: (args) => VolumeArgs.parse(args),
      spec: ({ size }) => ({ spec: { size }, uses: { ...NO_USE, storageBytes: size } }),
      plan: async ({ name }) => {
        const action = this.exists(name ?? '') ? 'no-op' : 'create';
        return { action, before: action === 'create' ? null : 'whole' };
      },
      apply: async (context, { broken }) => {
        const name = context.name ?? '';
        const path = join(this.#folder, 'volumes', name);
        if (!existsSync(path)) {
          await mkdir(path, { recursive: true });
          await this.#count(`make ${name}`);
        }
        await this.#runTool(context, name);
        if (broken) throw new HyphaError('E_SAL', `volume ${name} broke`);
        if (!existsSync(join(path, 'whole'))) {
          await writeFile(join(path, 'whole'), context.op);
          await this.#count(`finish ${name}`);
        }
        return this.#handle(context);
      },
      probe: async (context) => {
        if (!this.exists(context.name ?? '')) return { state: 'absent' };
        return { state: 'done', result: this.#handle(context) };
      },
      undo: async ({ name }, _args, before) => {
        const path = join(this.#folder, 'volumes', name ?? '');
        if (before !== null || !existsSync(path)) return;
        await rm(path, { recursive: true });
        await this.#count(`undo ${name}`);
      },
    });
  }

  /** A process of its own, as every real SAL starts them. */
  async #runTool({ signal }: StepContext, name: string): Promise<void> {
    const isHeld = existsSync(join(this.#folder, `hold-${name}`));
    const tool = spawn('/bin/sleep', [isHeld ? '600' : '0'], { stdio: 'ignore' });
    const exited = once(tool, 'exit');
    if (isHeld) await writeFile(join(this.#folder, `held-${name}`), String(tool.pid));
    const onAbort = () => tool.kill('SIGKILL');
    signal.addEventListener('abort', onAbort, { once: true });
    await exited;
    signal.removeEventListener('abort', onAbort);
    signal.throwIfAborted();
  }

  #handle({ rid, name }: StepContext) {
    return { $rid: rid ?? '', kind: 'volume', name: name ?? '', sizeBytes: 1, simulated: true };
  }

  async #count(effect: string): Promise<void> {
    await appendFile(join(this.#folder, 'effects'), `${effect}\n`);
  }
}
