/**
 * The moves that verbs and reconciler share. Of the instances of one rid at most one runs: the current
 * one. A replace makes the new one first, then stops the old one and keeps it (parked) until `settle`.
 */
import { rmdir } from 'node:fs/promises';
import { HyphaError, isHyphaError, type Rid } from '@hypha/protocol';
import type { ContainerSpec, ResourceLabel } from '@hypha/sal';
import { ensureRunFolder, findBundleSpec, listRunFolders } from './bundle.ts';
import { removeEmptyGroups } from './cgroup-folders.ts';
import { execInContainer } from './container-exec.ts';
import type { ContainerHost, Instance } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { readLogTail } from './container-log.ts';
import { checkHealth, type HealthTarget, type HealthVerdict, waitHealthy } from './health-check.ts';
import { ImageStore, type ResolvedImage } from './image-store.ts';
import { InstanceRuntime } from './instance-runtime.ts';
import { fieldHashes, InstanceStore, instanceOf } from './instance-store.ts';
import { findMonitor } from './monitor.ts';
import {
  attachmentOf,
  ensureAttachment,
  isAttached,
  removeAttachment,
} from './network-attachment.ts';
import { decideRestart, type RestartDecision } from './restart-policy.ts';
import { settleAll } from './settle-all.ts';

/** An image may be collected between the look and the snapshot; not twice in a row. */
const MAKE_ATTEMPTS_MAX = 3;

export interface MadeInstance {
  readonly instance: Instance;
  /** Its network was made or set right just now. */
  readonly isAttached: boolean;
}

export class Containers {
  readonly host: ContainerHost;
  readonly store: InstanceStore;
  readonly images: ImageStore;
  readonly runtime: InstanceRuntime;

  constructor(host: ContainerHost) {
    this.host = host;
    this.store = new InstanceStore(host);
    this.images = new ImageStore(host);
    this.runtime = new InstanceRuntime(host, this.store);
  }

  /**
   * The instance of a label, with its network, not yet started; current only where none was. Idempotent.
   * The parts are made side by side: a container is to start about as fast as its runtime can.
   */
  async make(
    label: ResourceLabel,
    spec: ContainerSpec,
    image: ResolvedImage,
    signal: AbortSignal,
  ): Promise<MadeInstance> {
    const instance = instanceOf(label, image.sha256);
    const record = { v: 1, label, image: image.sha256, fields: fieldHashes(spec) } as const;
    let isAttached = false;
    for (let attempt = 1; !(await this.store.has(instance)); attempt++) {
      await this.images.ensure(image, signal);
      try {
        const isFirst = (await this.store.findCurrent(instance.rid)) === undefined;
        await settleAll([
          this.store.create(instance, record, signal),
          // A mark on what is not there yet marks nothing.
          ...(isFirst ? [this.store.setCurrent(instance)] : []),
          ensureAttachment(this.host, attachmentOf(this.host, instance.rid), signal),
          ensureRunFolder(this.host, instance, signal),
        ]);
        isAttached = true;
      } catch (error) {
        const isRetried = isHyphaError(error) && attempt < MAKE_ATTEMPTS_MAX;
        if (!isRetried || (await this.images.has(image.sha256))) throw error;
      }
    }
    return { instance, isAttached };
  }

  /** Parks every other instance, and has this one current, attached and running. Idempotent. */
  async activate(
    { instance, isAttached: isJustAttached }: MadeInstance,
    options: { spec: ContainerSpec; restarts: number; signal: AbortSignal },
  ): Promise<void> {
    const { signal } = options;
    await this.#park(instance, signal);
    const current = await this.store.findCurrent(instance.rid);
    if (current?.id !== instance.id) await this.store.setCurrent(instance);
    if (await this.isRunning(instance, signal)) return;
    const attachment = attachmentOf(this.host, instance.rid);
    const status = await this.runtime.status(instance, signal);
    if (!isJustAttached) await ensureAttachment(this.host, attachment, signal);
    if ('pid' in status) {
      // Only a new start gets it out of a namespace that lost its name, or back from a stop.
      const isKept =
        (await isAttached(attachment, status.pid)) && !(await this.#isStopping(instance));
      if (!isKept) await this.runtime.stop(instance, signal);
    }
    await this.runtime.start(instance, options);
  }

  /**
   * Has an earlier instance current again, and running if it was. Its spec is that of its last start;
   * after a reboot that is gone and it stays down until the reconciler starts it from the record.
   */
  async restore(instance: Instance, wasRunning: boolean, signal: AbortSignal): Promise<void> {
    if (!(await this.store.has(instance))) {
      throw new HyphaError('E_SAL', `cannot bring back container ${instance.id}: it is gone`);
    }
    const spec = await findBundleSpec(this.host, instance);
    if (wasRunning && spec !== undefined) {
      const target = { instance, isAttached: false };
      await this.activate(target, { spec, restarts: 0, signal });
    } else {
      await this.#park(instance, signal);
      await this.store.setCurrent(instance);
    }
    await this.dropOthers(instance, signal);
  }

  /** Running under its monitor, reachable at its address, and meant to go on. */
  async isRunning(instance: Instance, signal: AbortSignal): Promise<boolean> {
    const status = await this.runtime.status(instance, signal);
    if (status.state !== 'running' || (await this.#isStopping(instance))) return false;
    const attachment = attachmentOf(this.host, instance.rid);
    return isAttached(attachment, status.pid);
  }

  /** Stops and removes every instance but this one, whole or not. Idempotent. */
  async dropOthers(instance: Instance, signal: AbortSignal): Promise<void> {
    for (const other of await this.#listAll(instance.rid)) {
      if (other.id !== instance.id) await this.#drop(other, signal);
    }
    await this.store.discardDrafts(instance.rid, signal);
  }

  /** Removes all that a resource has on this machine. Idempotent. */
  async dropAll(rid: Rid, signal: AbortSignal): Promise<void> {
    for (const instance of await this.#listAll(rid)) await this.#drop(instance, signal);
    await removeAttachment(this.host, attachmentOf(this.host, rid), signal);
    await this.store.discardDrafts(rid, signal);
    await this.store.clearCurrent(rid);
    await removeEmptyFolders(this.host);
  }

  /** Stops it and takes away all but what is on disk. Idempotent. */
  async halt(rid: Rid, signal: AbortSignal): Promise<void> {
    for (const instance of await this.#listAll(rid)) {
      await this.#stop(instance, signal);
      await this.runtime.clear(instance, signal);
    }
    await removeAttachment(this.host, attachmentOf(this.host, rid), signal);
    await removeEmptyFolders(this.host);
  }

  /** Removes images that no instance of this node uses any more. */
  async collectImages(signal: AbortSignal): Promise<void> {
    await this.images.collect(async () => {
      const instances = await this.store.list();
      const found = instances.map(async (instance) => {
        // One that goes at this moment uses nothing any more.
        const stored = await this.store.read(instance).catch(() => undefined);
        return stored === undefined ? [] : [stored.image];
      });
      return new Set((await Promise.all(found)).flat());
    }, signal);
  }

  /** What its restart policy says now. Only for an instance that does not run. */
  async decideRestart(instance: Instance, spec: ContainerSpec): Promise<RestartDecision> {
    // In this order: a monitor that is gone has written all it was going to.
    const isMonitored = (await findMonitor(this.host, instance)) !== undefined;
    return decideRestart({
      policy: spec.restart,
      instance: instance.id,
      run: await this.store.findRun(instance),
      exit: (await this.store.findExit(instance)) ?? (isMonitored ? 'pending' : 'unseen'),
      nowMs: this.host.nowMs(),
    });
  }

  /** One look; null when it is healthy or has no health of its own. */
  async checkHealth(
    instance: Instance,
    spec: ContainerSpec,
    options: { timeoutMs: number; signal: AbortSignal },
  ): Promise<HealthVerdict> {
    if (spec.health === undefined) return null;
    return checkHealth(spec.health, this.#target(instance, spec), options);
  }

  /** Throws `E_HEALTH`. */
  async waitHealthy(
    instance: Instance,
    spec: ContainerSpec,
    options: { name: string; signal: AbortSignal },
  ): Promise<void> {
    if (spec.health === undefined) return;
    const { name, signal } = options;
    await waitHealthy(spec.health, this.#target(instance, spec), {
      name,
      signal,
      readTail: () => readLogTail(this.store.logPath(instance), CONTAINER_LIMITS.logTailLines),
      findEnd: async () => {
        const { state } = await this.runtime.status(instance, signal);
        if (state === 'running') return null;
        await this.runtime.waitForMonitor(instance, signal);
        const exit = await this.store.findExit(instance);
        return exit === undefined ? 'it ended' : `it exited with ${exit.code}`;
      },
    });
  }

  /** Instances on disk, and those of which only the run folder is left. */
  async #listAll(rid: Rid): Promise<readonly Instance[]> {
    const folders = (await listRunFolders(this.host)).filter((instance) => instance.rid === rid);
    const all = [...(await this.store.list(rid)), ...folders];
    return [...new Map(all.map((instance) => [instance.id, instance])).values()];
  }

  async #park(instance: Instance, signal: AbortSignal): Promise<void> {
    for (const other of await this.#listAll(instance.rid)) {
      if (other.id !== instance.id) await this.#stop(other, signal);
    }
  }

  /** Somebody began to stop it, and perhaps died on it: it may end any moment. */
  async #isStopping(instance: Instance): Promise<boolean> {
    return (await this.store.findRun(instance))?.halted === true;
  }

  /** Noted before it is done, so that its end is never taken for the container's own. */
  async #stop(instance: Instance, signal: AbortSignal): Promise<void> {
    const run = (await this.store.has(instance)) ? await this.store.findRun(instance) : undefined;
    if (run !== undefined && !run.halted) {
      await this.store.writeRun(instance, { ...run, halted: true }, { isDurable: true });
    }
    await this.runtime.stop(instance, signal);
  }

  async #drop(instance: Instance, signal: AbortSignal): Promise<void> {
    await this.runtime.stop(instance, signal);
    await this.runtime.clear(instance, signal);
    await this.store.delete(instance, signal);
  }

  #target(instance: Instance, spec: ContainerSpec): HealthTarget {
    return {
      address: attachmentOf(this.host, instance.rid).address,
      exec: async (command, signal) => {
        const timeoutMs = CONTAINER_LIMITS.probeMsMax;
        const request = { spec, command, key: 'health', timeoutMs, signal };
        const outcome = await execInContainer(this.host, this.store, instance, request);
        return outcome.exitCode;
      },
    };
  }
}

/**
 * Folders that all containers of the node share: they go with the last. Whoever makes a container begins
 * with its run folder.
 */
async function removeEmptyFolders(host: ContainerHost): Promise<void> {
  if ((await listRunFolders(host)).length > 0) return;
  await removeEmptyGroups(host);
  await rmdir(host.runFolder).catch(() => undefined);
}
