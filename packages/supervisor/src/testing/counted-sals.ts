/**
 * Volumes and containers that are files and count what is done to them, shared by the supervisor and runner
 * processes of a test. An apply can be held half way, with a tool of its own running. Tests only.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { appendFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HyphaError, type Json } from '@hypha/protocol';
import {
  composeSals,
  defineVerb,
  type ResourceKind,
  type ResourceRecord,
  type Sal,
  type Sals,
  type StepContext,
} from '@hypha/sal';
import { z } from 'zod';

const Args = z.strictObject({
  size: z.int().default(1),
  mounts: z.record(z.string(), z.json()).optional(),
});
type Args = z.infer<typeof Args>;

export class CountedSals {
  /** Removals that were refused by this instance. */
  refusals = 0;
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** `make web`, `repair web`, `remove web`, `undo web` … in the order they happened. */
  effects(): string[] {
    const path = join(this.#folder, 'effects');
    return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : [];
  }

  /** Names of what there is. */
  things(): string[] {
    const path = join(this.#folder, 'things');
    return existsSync(path) ? readdirSync(path).sort() : [];
  }

  /** The next apply or repair of it stops half way, with its tool running, until let go. */
  async hold(name: string): Promise<void> {
    await this.#put(`hold-${name}`, '');
  }
  async letGo(name: string): Promise<void> {
    await rm(join(this.#folder, `hold-${name}`), { force: true });
  }
  async letGoAll(): Promise<void> {
    const names = existsSync(this.#folder) ? readdirSync(this.#folder) : [];
    for (const name of names.filter((each) => each.startsWith('hold-'))) {
      await rm(join(this.#folder, name), { force: true });
    }
  }
  /** Pid of the tool that runs half way through an apply. */
  heldBy(name: string): number | undefined {
    const path = join(this.#folder, `held-${name}`);
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    return text === '' ? undefined : Number(text);
  }

  /** It cannot be removed until let go. */
  async pin(name: string): Promise<void> {
    await this.#put(`pin-${name}`, '');
  }
  async unpin(name: string): Promise<void> {
    await rm(join(this.#folder, `pin-${name}`), { force: true });
  }

  /** As a crash would: it is gone, and nobody was told. */
  async lose(name: string): Promise<void> {
    await rm(this.#thing(name), { force: true });
  }

  sals(): Sals {
    return composeSals([this.#sal('volume'), this.#sal('container')]);
  }

  #sal(kind: string): Sal {
    const status = { state: 'simulated', driver: 'counted' } as const;
    return { kind, status, verbs: [this.#ensure(kind)], resource: this.#resource(kind) };
  }

  #ensure(kind: string) {
    const isThere = (name: string | null, size: number) =>
      existsSync(this.#thing(name ?? '')) &&
      readFileSync(this.#thing(name ?? ''), 'utf8') === `${size}`;
    const handle = ({ rid, name }: StepContext): Json => ({
      ...{ $rid: rid ?? '', kind, name: name ?? '' },
      simulated: true,
    });
    return defineVerb<Args>({
      verb: `${kind}.ensure`,
      class: 'ensure',
      capability: kind,
      kind,
      parse: (args) => Args.parse(args),
      spec: ({ size }) => ({
        spec: { size },
        uses: { milliCpus: 0, memoryBytes: 0, storageBytes: size },
      }),
      plan: async ({ name }, { size }) => {
        if (isThere(name, size)) return { action: 'no-op', before: null };
        const before = existsSync(this.#thing(name ?? ''))
          ? readFileSync(this.#thing(name ?? ''), 'utf8')
          : null;
        return { action: before === null ? 'create' : 'update', before };
      },
      predict: async (context) => handle(context),
      apply: async (context, { size }) => {
        const name = context.name ?? '';
        if (isThere(name, size)) return handle(context);
        await this.#runTool(context.signal, name);
        await this.#put(`things/${name}`, String(size));
        await this.#count(`make ${name}`);
        return handle(context);
      },
      probe: async (context, { size }) =>
        isThere(context.name, size)
          ? { state: 'done', result: handle(context) }
          : { state: 'absent' },
      undo: async ({ name }, _args, before) => {
        if (!existsSync(this.#thing(name ?? ''))) return;
        if (before === null) await rm(this.#thing(name ?? ''));
        else await this.#put(`things/${name}`, String(before));
        await this.#count(`undo ${name}`);
      },
    });
  }

  #resource(kind: string): ResourceKind {
    return {
      kind,
      observe: async ({ name }) => {
        const state = existsSync(this.#thing(name)) ? 'running' : 'missing';
        return { state, converged: state === 'running', addresses: [], info: {} };
      },
      converge: async ({ name, spec }, signal) => {
        const { size } = Args.parse(spec);
        await this.#runTool(signal, name);
        await this.#put(`things/${name}`, String(size));
        await this.#count(`repair ${name}`);
      },
      remove: async ({ name }: ResourceRecord) => {
        if (existsSync(join(this.#folder, `pin-${name}`))) {
          this.refusals++;
          throw new HyphaError('E_SAL', `cannot remove ${name}: it is busy`);
        }
        if (!existsSync(this.#thing(name))) return;
        await rm(this.#thing(name));
        await this.#count(`remove ${name}`);
      },
      halt: async ({ name }) => this.#count(`halt ${name}`),
      logs: async function* ({ name }) {
        yield `${name} line 1`;
        yield `${name} line 2`;
      },
      list: async () => [],
    };
  }

  /** A process of its own, as every real SAL starts them. */
  async #runTool(signal: AbortSignal, name: string): Promise<void> {
    if (!existsSync(join(this.#folder, `hold-${name}`))) return;
    const tool = spawn('/bin/sleep', ['600'], { stdio: 'ignore' });
    const exited = once(tool, 'exit');
    await this.#put(`held-${name}`, String(tool.pid));
    const onAbort = () => tool.kill('SIGKILL');
    signal.addEventListener('abort', onAbort, { once: true });
    while (existsSync(join(this.#folder, `hold-${name}`)) && tool.exitCode === null) {
      signal.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    tool.kill('SIGKILL');
    await exited;
    signal.removeEventListener('abort', onAbort);
    await rm(join(this.#folder, `held-${name}`), { force: true });
  }

  #thing(name: string): string {
    return join(this.#folder, 'things', name);
  }

  async #put(path: string, text: string): Promise<void> {
    await mkdir(join(this.#folder, 'things'), { recursive: true });
    await writeFile(join(this.#folder, path), text);
  }

  async #count(effect: string): Promise<void> {
    await appendFile(join(this.#folder, 'effects'), `${effect}\n`);
  }
}
