/** Containers as the reconciler sees them: kept as recorded, restarted as their policy says. */
import { type Json, type Rid, Rid as RidSchema } from '@hypha/protocol';
import {
  ContainerSpec,
  containerAddress,
  labelForRecord,
  labelText,
  type Observed,
  type ResourceKind,
  type ResourceRecord,
} from '@hypha/sal';
import { listRunFolders } from './bundle.ts';
import { readStats } from './cgroup-folders.ts';
import type { Instance } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { readLog } from './container-log.ts';
import type { Containers, MadeInstance } from './containers.ts';
import { wasOutOfMemory } from './monitor.ts';
import { listAttachedRids } from './network-attachment.ts';

export function containerResource(containers: Containers): ResourceKind {
  const resource = new ContainerResource(containers);
  return {
    kind: 'container',
    observe: (record, signal) => resource.observe(record, signal),
    converge: (record, signal) => resource.converge(record, signal),
    remove: ({ rid }, { signal }) => containers.dropAll(rid, signal),
    settle: (record, signal) => resource.settle(record, signal),
    halt: ({ rid }, signal) => containers.halt(rid, signal),
    logs: ({ rid }, options) => readLog(() => resource.findLogPath(rid), options),
    list: () => resource.list(),
  };
}

interface Sighting {
  readonly state: string;
  readonly converged: boolean;
  readonly info: { readonly [key: string]: Json };
}

class ContainerResource {
  readonly #containers: Containers;

  constructor(containers: Containers) {
    this.#containers = containers;
  }

  async observe(record: ResourceRecord, signal: AbortSignal): Promise<Observed> {
    const { store, host } = this.#containers;
    const addresses = [containerAddress(host.node, record.rid)];
    const current = await store.findCurrent(record.rid);
    if (current === undefined) return { state: 'missing', converged: false, addresses, info: {} };
    const stored = await store.read(current);
    const info = { instance: current.id, image: stored.record.image };
    if (stored.record.label.specHash !== record.specHash) {
      const reason = 'another spec is current';
      return { state: 'missing', converged: false, addresses, info: { ...info, reason } };
    }
    const spec = ContainerSpec.parse(record.spec);
    const seen = await this.#observeInstance(current, spec, signal);
    return { ...seen, addresses, info: { ...info, ...seen.info } };
  }

  /** Starts what should run, and leaves alone what rests or waits for its next start. */
  async converge(record: ResourceRecord, signal: AbortSignal): Promise<void> {
    const spec = ContainerSpec.parse(record.spec);
    const { store } = this.#containers;
    const made = (await this.#findRecorded(record)) ?? (await this.#make(record, spec, signal));
    const { instance } = made;
    const isCurrent = (await store.findCurrent(record.rid))?.id === instance.id;
    if (isCurrent && (await this.#containers.isRunning(instance, signal))) return;
    const status = await this.#containers.runtime.status(instance, signal);
    const isStarted = 'pid' in status && status.state !== 'created';
    // A job is never cut off and run again, whatever it lost.
    if (isCurrent && isStarted && spec.restart === 'never') return;
    const decision = await this.#containers.decideRestart(instance, spec);
    // What runs needs no decision: only its place or its monitor has to be set right.
    if (isCurrent && !('pid' in status) && decision.action !== 'start') return;
    const restarts = decision.action === 'rest' ? 0 : decision.restarts;
    await this.#containers.activate(made, { spec, restarts, signal });
  }

  async settle(record: ResourceRecord, signal: AbortSignal): Promise<void> {
    const { store } = this.#containers;
    const current = await store.findCurrent(record.rid);
    if (current === undefined) return;
    const { specHash } = (await store.read(current)).record.label;
    // Another spec is current: which of the two goes is not decided here.
    if (specHash !== record.specHash) return;
    await this.#containers.dropOthers(current, signal);
    await this.#containers.collectImages(signal);
  }

  async findLogPath(rid: Rid): Promise<string | undefined> {
    const current = await this.#containers.store.findCurrent(rid);
    return current === undefined ? undefined : this.#containers.store.logPath(current);
  }

  async list(): Promise<readonly { rid: string; label: string }[]> {
    const { store, host } = this.#containers;
    const folders = (await listRunFolders(host)).map(({ rid }) => rid);
    const rids = [...(await store.listRids()), ...folders, ...(await listAttachedRids(host))];
    return Promise.all(
      [...new Set(rids)].map(async (rid) => ({ rid, label: await this.#labelOf(rid) })),
    );
  }

  async #observeInstance(
    instance: Instance,
    spec: ContainerSpec,
    signal: AbortSignal,
  ): Promise<Sighting> {
    const { store, runtime, host } = this.#containers;
    const status = await runtime.status(instance, signal);
    if (status.state === 'running' || status.state === 'unmonitored') {
      const seen = await this.#observeRunning(instance, spec, status, signal);
      const isStill = (await runtime.status(instance, signal)).state === status.state;
      // It ended while it was looked at: what was seen is of no use.
      return isStill ? seen : this.#observeInstance(instance, spec, signal);
    }
    const run = await store.findRun(instance);
    const counted = { restarts: run?.restarts ?? 0 };
    if (status.state === 'created') {
      const info = { ...counted, reason: 'it was never started' };
      return { state: 'failed', converged: false, info };
    }
    const decision = await this.#containers.decideRestart(instance, spec);
    const exit = await store.findExit(instance);
    const reason = (await wasOutOfMemory(host, instance)) ? { reason: 'out of memory' } : {};
    const end = { exitCode: exit?.code ?? null, endedAtMs: exit?.atMs ?? null };
    const info = { ...counted, ...end, ...reason };
    if (decision.action === 'wait') {
      const waits = { ...info, restarts: decision.restarts, retryAtMs: decision.untilMs };
      return { state: 'backing-off', converged: true, info: waits };
    }
    return { state: 'stopped', converged: decision.action === 'rest', info };
  }

  async #observeRunning(
    instance: Instance,
    spec: ContainerSpec,
    status: { readonly state: 'running' | 'unmonitored'; readonly pid: number },
    signal: AbortSignal,
  ): Promise<Sighting> {
    const { store, host } = this.#containers;
    const run = await store.findRun(instance);
    const isAttached = await this.#containers.isRunning(instance, signal);
    const info = {
      restarts: run?.restarts ?? 0,
      pid: status.pid,
      startedAtMs: run?.startedAtMs ?? null,
      ...(await readStats(host, instance)),
      health: await this.#observeHealth(instance, spec, signal),
    };
    if (isAttached) return { state: 'running', converged: true, info };
    const missing = run?.halted === true ? 'it is being stopped' : 'its network was taken away';
    const reason = status.state === 'running' ? missing : 'nobody watches over it any more';
    // A job is never cut off and run again, whatever it lost.
    const converged = spec.restart === 'never';
    const state = status.state === 'running' || converged ? 'running' : 'failed';
    return { state, converged, info: { ...info, reason } };
  }

  /** `exec` is left out: a process per look and container would be a load of its own. */
  async #observeHealth(
    instance: Instance,
    spec: ContainerSpec,
    signal: AbortSignal,
  ): Promise<string> {
    const { exec, ...health } = spec.health ?? { within: 0 };
    if (health.http === undefined && health.tcp === undefined) {
      return exec === undefined ? 'none' : 'not looked at';
    }
    const timeoutMs = CONTAINER_LIMITS.observeProbeMsMax;
    const options = { timeoutMs, signal };
    const verdict = await this.#containers.checkHealth(instance, { ...spec, health }, options);
    return verdict ?? 'healthy';
  }

  /** The instance made for this spec; the current one first. */
  async #findRecorded(record: ResourceRecord): Promise<MadeInstance | undefined> {
    const { store } = this.#containers;
    const current = await store.findCurrent(record.rid);
    const others = await store.list(record.rid);
    for (const instance of current === undefined ? others : [current, ...others]) {
      const stored = await store.read(instance);
      if (stored.record.label.specHash === record.specHash) {
        return { instance, isAttached: false };
      }
    }
    return undefined;
  }

  async #make(
    record: ResourceRecord,
    spec: ContainerSpec,
    signal: AbortSignal,
  ): Promise<MadeInstance> {
    const image = await this.#containers.images.resolve(spec.image);
    return this.#containers.make(labelForRecord(record), spec, image, signal);
  }

  async #labelOf(rid: Rid): Promise<string> {
    const { store } = this.#containers;
    const [instance] = await store.list(RidSchema.parse(rid));
    const stored = instance && (await store.read(instance).catch(() => undefined));
    return stored === undefined ? `container ${rid}` : labelText(stored.record.label);
  }
}
