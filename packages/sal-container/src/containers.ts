/**
 * The moves that verbs and reconciler share. Of the instances of one rid at most one runs: the current
 * one. A replace makes the new one first, then stops the old one and keeps it (parked) until `settle`.
 */
import { rmdir } from 'node:fs/promises';
import { HyphaError, isHyphaError, type Rid } from '@hypha/protocol';
import {
  allowanceOf,
  type ContainerSpec,
  commandFailure,
  declaredFields,
  type ResourceLabel,
} from '@hypha/sal';
import { ensureRunFolder, findBundleSpec, listRunFolders } from './bundle.ts';
import { removeEmptyGroups } from './cgroup-folders.ts';
import type { ContainerHost, Instance } from './container-host.ts';
import { ImageStore, type ResolvedImage } from './image-store.ts';
import { InstanceHealth } from './instance-health.ts';
import { InstanceRuntime } from './instance-runtime.ts';
import { type InstanceRecord, InstanceStore, instanceOf } from './instance-store.ts';
import { findMonitor } from './monitor.ts';
import {
  attachmentOf,
  ensureLinks,
  ensureNamespace,
  isAttached,
  removeAttachment,
} from './network-attachment.ts';
import { decideRestart, type RestartDecision } from './restart-policy.ts';
import { settleAll } from './settle-all.ts';

/** An image may be collected between the look and the snapshot; not twice in a row. */
const MAKE_ATTEMPTS_MAX = 3;

/** `ended`: it had no process at all; `ailing`: it had, but not one that was as it should be. */
export type Liveness = 'running' | 'ailing' | 'ended';

export class Containers {
  readonly host: ContainerHost;
  readonly store: InstanceStore;
  readonly images: ImageStore;
  readonly runtime: InstanceRuntime;
  readonly health: InstanceHealth;

  constructor(host: ContainerHost) {
    this.host = host;
    this.store = new InstanceStore(host);
    this.images = new ImageStore(host);
    this.runtime = new InstanceRuntime(host, this.store);
    this.health = new InstanceHealth(this);
  }

  /**
   * The instance of a label, with its network namespace, not yet started nor current. Idempotent.
   * The parts are made side by side: a container is to start about as fast as its runtime can.
   */
  async make(
    label: ResourceLabel,
    spec: ContainerSpec,
    image: ResolvedImage,
    signal: AbortSignal,
  ): Promise<Instance> {
    const instance = instanceOf(label, image.sha256);
    const record = { v: 1, label, image: image.sha256, ...declaredFields(spec) } as const;
    for (let attempt = 1; !(await this.store.has(instance)); attempt++) {
      await this.images.ensure(image, signal);
      try {
        await settleAll([
          this.store.create(instance, record, signal),
          ensureNamespace(this.host, attachmentOf(this.host, instance.rid), signal),
          ensureRunFolder(this.host, instance, signal),
        ]);
      } catch (error) {
        const isRetried = isHyphaError(error) && attempt < MAKE_ATTEMPTS_MAX;
        if (!isRetried || (await this.images.has(image.sha256))) throw error;
      }
    }
    return instance;
  }

  /** Parks every other instance, and has this one current, attached and running. Idempotent. */
  async activate(
    instance: Instance,
    options: { spec: ContainerSpec; restarts: number; signal: AbortSignal },
  ): Promise<void> {
    const { signal } = options;
    await this.#park(instance, signal);
    await this.store.discardDrafts(instance.rid, signal);
    // Side by side: whoever finds one without the other takes it for half made, and activates it again.
    await settleAll([this.#mark(instance), this.#start(instance, options)]);
  }

  /** Current, and on disk with all that its maker named. */
  async #mark(instance: Instance): Promise<void> {
    const current = await this.store.findCurrent(instance.rid);
    if (current?.id !== instance.id) await this.store.setCurrent(instance);
    await this.store.sync();
  }

  async #start(
    instance: Instance,
    options: { spec: ContainerSpec; restarts: number; signal: AbortSignal },
  ): Promise<void> {
    const { signal } = options;
    if (await this.isRunning(instance, signal)) return;
    const attachment = attachmentOf(this.host, instance.rid);
    await ensureNamespace(this.host, attachment, signal);
    const status = await this.runtime.status(instance, signal);
    if ('pid' in status) {
      await ensureLinks(this.host, attachment, signal);
      // Only a new start gets it out of a namespace that lost its name, or back from a stop.
      const isKept =
        (await isAttached(attachment, status.pid)) && !(await this.#isStopping(instance));
      if (!isKept) await this.runtime.stop(instance, signal);
    }
    const linked = ensureLinks(this.host, attachment, signal);
    await settleAll([linked, this.runtime.start(instance, { ...options, linked })]);
  }

  /**
   * Holds an instance to what `record` says, without a new start if it runs, and keeps the record, which is
   * written last. Idempotent.
   */
  async adjust(instance: Instance, record: InstanceRecord, signal: AbortSignal): Promise<void> {
    const allowance = allowanceOf(record);
    if (allowance !== null) await this.runtime.adjust(instance, allowance, signal);
    await this.store.write(instance, record);
  }

  /**
   * Has an earlier instance current again as it was before the step `op`, and drops what that made. Its spec is
   * that of its last start; after a reboot that is gone and it stays down until the reconciler starts it from
   * the record.
   */
  async restore(
    instance: Instance,
    { op, record, was }: { op: string; record: InstanceRecord | null; was: Liveness },
    signal: AbortSignal,
  ): Promise<void> {
    if (!(await this.store.has(instance))) {
      throw new HyphaError('E_SAL', `cannot bring back container ${instance.id}: it is gone`);
    }
    // First of all: it may have filled the pool, and then nothing else can be written.
    for (const other of await this.#listAll(instance.rid)) {
      // What an earlier step of the run parked is for the undo of that step.
      if (other.id !== instance.id && (await this.#isOf(other, op)))
        await this.#drop(other, signal);
    }
    if (record !== null) await this.#giveBack(instance, record, signal);
    const spec = await this.#findSpec(instance);
    if (was === 'running' && spec !== undefined) {
      await this.activate(instance, { spec, restarts: 0, signal });
    } else {
      await this.#park(instance, signal);
      await this.#mark(instance);
      const isAlive = 'pid' in (await this.runtime.status(instance, signal));
      if (was === 'ended' && isAlive) await this.#stop(instance, signal);
    }
    await this.store.discardDrafts(instance.rid, signal);
  }

  /**
   * The limits of an earlier record. Where more is in use than they allow, the larger ones hold until the reconciler
   * can take it away, as after a commit.
   */
  async #giveBack(instance: Instance, record: InstanceRecord, signal: AbortSignal): Promise<void> {
    const held = allowanceOf(await this.store.read(instance));
    try {
      await this.adjust(instance, record, signal);
    } catch (error) {
      if (held === null || commandFailure(error) === undefined) throw error;
      await this.store.write(instance, { ...record, held });
    }
  }

  /** The spec of its last start, with what was changed in place since. */
  async #findSpec(instance: Instance): Promise<ContainerSpec | undefined> {
    const spec = await findBundleSpec(this.host, instance);
    if (spec === undefined) return undefined;
    return { ...spec, ...(await this.store.read(instance)).adjustable };
  }

  /** Made by the step, or only half there, as a cut step or removal leaves one. */
  async #isOf(instance: Instance, op: string): Promise<boolean> {
    if (!(await this.store.has(instance))) return true;
    const stored = await this.store.read(instance).catch(() => undefined);
    return stored?.label.createdBy === op;
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

  /**
   * Stops what runs on a volume whose content is about to be replaced. Noted as ours, so that the reconciler starts it
   * again; a job, which nobody would start again, goes on.
   */
  async stopUsers(volume: Rid, signal: AbortSignal): Promise<void> {
    for (const instance of await listRunFolders(this.host)) {
      const spec = await findBundleSpec(this.host, instance);
      const isUser = Object.values(spec?.mounts ?? {}).some(({ $rid }) => $rid === volume);
      if (isUser && spec?.restart !== 'never') await this.#stop(instance, signal);
    }
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

  /**
   * Noted before it is done, so that its end is never taken for the container's own. One that ended by itself keeps
   * its own end: it would be started again for no reason.
   */
  async #stop(instance: Instance, signal: AbortSignal): Promise<void> {
    const isAlive = 'pid' in (await this.runtime.status(instance, signal));
    const isNoted = isAlive && (await this.store.has(instance));
    const run = isNoted ? await this.store.findRun(instance) : undefined;
    if (run !== undefined && !run.halted) {
      const halted = { ...run, halted: true };
      await this.store.writeRun(instance, halted, { isDurable: true }).catch((error: unknown) => {
        // A full pool must not keep what fills it running.
        if (!isHyphaError(error, 'E_STORAGE')) throw error;
      });
    }
    await this.runtime.stop(instance, signal);
  }

  async #drop(instance: Instance, signal: AbortSignal): Promise<void> {
    await this.runtime.stop(instance, signal);
    await this.runtime.clear(instance, signal);
    await this.store.delete(instance, signal);
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
