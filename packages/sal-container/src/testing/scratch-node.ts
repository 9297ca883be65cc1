import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Json, NodeId } from '@hypha/protocol';
import {
  EFFECTS,
  type Effects,
  NO_SECRETS,
  type Observed,
  type ResourceRecord,
  type Sal,
  type SecretFiles,
  type StepPlan,
} from '@hypha/sal';
import {
  applyWhole,
  type ContractCall,
  type ContractWorld,
  contractContext,
  contractRid,
  getVerb,
  recordOf,
} from '@hypha/sal/contract';
import { BtrfsPool } from '@hypha/sal-btrfs';
import { expect, vi } from 'vitest';
import type { ContainerHost, Instance } from '../container-host.ts';
import { createContainerSal } from '../container-sal.ts';
import { Containers } from '../containers.ts';
import { attachmentOf } from '../network-attachment.ts';
import type { ContainerMachine } from '../runtime-detection.ts';
import { listGroupFolders, readTraces } from './traces.ts';

const SIGNAL_MS = 120_000;

export function signal(): AbortSignal {
  return AbortSignal.timeout(SIGNAL_MS);
}

/** Arguments of `container.ensure`; the image is the node's unless named. */
export interface Declaration {
  readonly [field: string]: Json;
}

/** What `observe` says about a container. */
export interface ContainerInfo {
  readonly health?: string;
  readonly exitCode?: number | null;
  readonly memoryBytes?: number | null;
}

export interface UncommittedStep {
  readonly plan: StepPlan;
  apply(): Promise<Json>;
  undo(): Promise<void>;
}

/** A page on port 80, and healthy once it is served. */
export const PAGE = {
  files: { '/www/page': 'hello' },
  health: { http: { port: 80, path: '/page' } },
};

export interface NodeOptions {
  readonly node: NodeId;
  readonly machine: ContainerMachine;
  readonly image: string;
  /** Root of its pool: a subvolume is as good as a file system. */
  readonly root: string;
  readonly btrfs: string;
  readonly runFolder: string;
  readonly runParent?: string;
  readonly group: string;
  readonly plainRegistries: readonly string[];
  discard(): Promise<void>;
}

/** One node of its own: pool, run folder, cgroups and names that nobody else has. */
export class ScratchNode implements ContractWorld {
  readonly #options: NodeOptions;
  /** Added to the clock the SAL sees. */
  laterMs = 0;
  secrets: SecretFiles = NO_SECRETS;

  constructor(options: NodeOptions) {
    this.#options = options;
  }

  /** All that another process needs to open the same node. */
  tell(): Json {
    const { node, image, root, btrfs, runFolder, group } = this.#options;
    return { node, image, root, btrfs, runFolder, group };
  }

  get image(): string {
    return this.#options.image;
  }

  get runFolder(): string {
    return this.#options.runFolder;
  }

  get group(): string {
    return this.#options.group;
  }

  async open(effects: Effects): Promise<Sal> {
    const { machine } = this.#options;
    const host = await this.host(effects);
    const status = { state: 'real', driver: 'test' } as const;
    return createContainerSal({ ...host, machine, status, nowMs: () => host.nowMs() });
  }

  sal(): Promise<Sal> {
    return this.open(EFFECTS);
  }

  async containers(effects: Effects = EFFECTS): Promise<Containers> {
    return new Containers(await this.host(effects));
  }

  async host(effects: Effects = EFFECTS): Promise<ContainerHost> {
    const { machine, runFolder, group, plainRegistries } = this.#options;
    return {
      ...machine,
      node: this.#options.node,
      effects,
      runFolder,
      group,
      plainRegistries,
      pool: await this.#openPool(effects),
      findVolume: (rid) => this.#findVolume(rid),
      secrets: this.secrets,
      nowMs: () => Date.now() + this.laterMs,
    };
  }

  /** Declares a container as a committed run did. */
  async ensure(name: string, args: Declaration, run = 'a'): Promise<Json> {
    return applyWhole(await this.sal(), this.call(name, args), { run });
  }

  /** A declaring step of a run that has not committed. */
  async openStep(name: string, args: Declaration): Promise<UncommittedStep> {
    const call = this.call(name, args);
    const verb = getVerb(await this.sal(), call.verb);
    const context = contractContext(verb, call);
    const parsed = verb.parse(call.args);
    const plan = await verb.plan(context, parsed);
    return {
      plan,
      apply: () => verb.apply(context, parsed, plan.before),
      undo: async () => verb.undo?.(context, parsed, plan.before),
    };
  }

  call(name: string, args: Declaration): ContractCall {
    return { verb: 'container.ensure', name, args: { image: this.image, ...args } };
  }

  async record(name: string, args: Declaration): Promise<ResourceRecord> {
    return recordOf(await this.sal(), this.call(name, args));
  }

  async exec(name: string, command: readonly string[], options: Json = {}): Promise<Json> {
    const container = { $rid: contractRid('container', name), kind: 'container', name };
    const args = { container, command, ...(options as object) };
    return applyWhole(await this.sal(), { verb: 'container.exec', name, args });
  }

  async observe(
    name: string,
    args: Declaration,
  ): Promise<Omit<Observed, 'info'> & { readonly info: ContainerInfo }> {
    const sal = await this.sal();
    const seen = await sal.resource.observe(await this.record(name, args), signal());
    return { ...seen, info: seen.info as unknown as ContainerInfo };
  }

  async converge(name: string, args: Declaration): Promise<void> {
    const sal = await this.sal();
    await sal.resource.converge(await this.record(name, args), signal());
  }

  async remove(name: string, args: Declaration): Promise<void> {
    const sal = await this.sal();
    const options = { deleteData: false, signal: signal() };
    await sal.resource.remove(await this.record(name, args), options);
  }

  async logs(name: string, args: Declaration): Promise<readonly string[]> {
    const sal = await this.sal();
    const options = { follow: false, tail: null, signal: signal() };
    const lines: string[] = [];
    for await (const line of sal.resource.logs?.(await this.record(name, args), options) ?? []) {
      lines.push(line);
    }
    return lines;
  }

  async current(name: string): Promise<Instance> {
    const { store } = await this.containers();
    const current = await store.findCurrent(contractRid('container', name));
    if (current === undefined) throw new Error(`no container ${name}`);
    return current;
  }

  /** Of the container's first process. */
  async pid(name: string): Promise<number> {
    const { runtime } = await this.containers();
    const status = await runtime.status(await this.current(name), signal());
    if (!('pid' in status)) throw new Error(`${name} is ${status.state}`);
    return status.pid;
  }

  async attachment(name: string): Promise<ReturnType<typeof attachmentOf>> {
    return attachmentOf(await this.host(), contractRid('container', name));
  }

  /** What the container's web server answers. */
  async fetchPage(name: string): Promise<string> {
    const { address } = await this.attachment(name);
    const answer = await fetch(`http://[${address}]/page`, { signal: signal() });
    return answer.text();
  }

  /** Folder of a volume that containers can mount. */
  async volume(name: string): Promise<string> {
    const path = join(this.#options.root, 'volumes', contractRid('volume', name));
    await mkdir(path, { recursive: true });
    return path;
  }

  /** Once every container named `job` has ended: what it does meanwhile is no two times the same. */
  async capture(): Promise<Json> {
    const { runtime, store, host } = await this.containers();
    for (const job of await store.list(contractRid('container', 'job'))) {
      await vi.waitFor(
        async () => expect(await runtime.status(job, signal())).not.toHaveProperty('pid'),
        { timeout: 20_000 },
      );
      await runtime.waitForMonitor(job, signal());
    }
    return readTraces(host);
  }

  /** Throws when the SAL left anything on the machine once the last container was removed. */
  async close(): Promise<void> {
    const sal = await this.sal();
    const containers = await this.containers();
    for (const { rid } of await sal.resource.list(signal())) {
      await containers.dropAll(rid, signal());
    }
    await this.#options.discard();
    await rm(this.runFolder, { recursive: true, force: true });
    const left = await listGroupFolders(containers.host);
    if (left.length > 0) throw new Error(`left behind: ${left.join(', ')}`);
  }

  async #findVolume(rid: string): Promise<string | undefined> {
    const path = join(this.#options.root, 'volumes', rid);
    return stat(path).then(
      () => path,
      () => undefined,
    );
  }

  /** Opening looks at the pool with commands of its own, which are not the adapter's effects. */
  async #openPool(effects: Effects): Promise<BtrfsPool> {
    const { root, btrfs } = this.#options;
    let now = EFFECTS;
    const opening: Effects = {
      run: (command) => now.run(command),
      change: (change) => now.change(change),
    };
    const options = { root, btrfs, backing: undefined, effects: opening };
    const pool = await BtrfsPool.open(options, signal());
    now = effects;
    return pool;
  }
}
