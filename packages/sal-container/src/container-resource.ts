/** Containers as the reconciler sees them: kept as recorded, restarted as their policy says. */
import { HyphaError, type Json, type Rid, Rid as RidSchema } from '@hypha/protocol';
import {
  allowanceOf,
  ContainerSpec,
  changeOf,
  containerAddress,
  declaredFields,
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
import type { Containers } from './containers.ts';
import type { RunRecord } from './instance-store.ts';
import { wasOutOfMemory } from './monitor.ts';
import { attachmentOf, isAttached, listAttachedRids } from './network-attachment.ts';

export function containerResource(containers: Containers): ResourceKind {
  const resource = new ContainerResource(containers);
  return {
    kind: 'container',
    observe: (record, signal) => resource.observe(record, signal),
    converge: (record, signal) => resource.converge(record, signal),
    remove: ({ rid }, { signal }) => resource.remove(rid, signal),
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
  /** Rid → what its health was when it was last looked at, on the monotonic clock. */
  readonly #health = new Map<Rid, { instance: string; verdict: string; atMs: number }>();

  constructor(containers: Containers) {
    this.#containers = containers;
  }

  async remove(rid: Rid, signal: AbortSignal): Promise<void> {
    this.#health.delete(rid);
    await this.#containers.dropAll(rid, signal);
  }

  async observe(record: ResourceRecord, signal: AbortSignal): Promise<Observed> {
    const { store, host } = this.#containers;
    const addresses = [containerAddress(host.node, record.rid)];
    const current = await store.findCurrent(record.rid);
    if (current === undefined) return { state: 'missing', converged: false, addresses, info: {} };
    const stored = await store.read(current);
    const info = { instance: current.id, image: stored.image };
    if (stored.label.specHash !== record.specHash) {
      const reason = 'another spec is current';
      return { state: 'missing', converged: false, addresses, info: { ...info, reason } };
    }
    const spec = ContainerSpec.parse(record.spec);
    const seen = await this.#observeInstance(current, spec, signal);
    const converged = seen.converged && stored.held === null;
    const held = stored.held === null ? {} : { reason: 'it still has more than is declared' };
    return { ...seen, converged, addresses, info: { ...info, ...held, ...seen.info } };
  }

  /** Starts what should run, and leaves alone what rests or waits for its next start. */
  async converge(record: ResourceRecord, signal: AbortSignal): Promise<void> {
    const spec = ContainerSpec.parse(record.spec);
    const { store } = this.#containers;
    const instance =
      (await this.#findRecorded(record)) ??
      (await this.#findAdjustable(record, spec)) ??
      (await this.#make(record, spec, signal));
    await this.#lower(instance, spec, signal);
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
    await this.#containers.activate(instance, { spec, restarts, signal });
  }

  async settle(record: ResourceRecord, signal: AbortSignal): Promise<void> {
    const { store } = this.#containers;
    const current = await store.findCurrent(record.rid);
    if (current === undefined) return;
    const { specHash } = (await store.read(current)).label;
    // Which of the two goes is not decided here; it is tried again once it is.
    if (specHash !== record.specHash) {
      throw new HyphaError('E_SAL', `another spec of container ${record.name} is current`);
    }
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
      // It may have ended while it was looked at: then what was seen is of no use.
      const isSure =
        seen.converged || (await runtime.status(instance, signal)).state === status.state;
      return isSure ? seen : this.#observeInstance(instance, spec, signal);
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
    const info = {
      restarts: run?.restarts ?? 0,
      pid: status.pid,
      startedAtMs: run?.startedAtMs ?? null,
      ...readStats(host, instance),
      health: await this.#observeHealth(instance, spec, signal),
    };
    const reason = await this.#findFault(instance, status, run);
    if (reason === null) return { state: 'running', converged: true, info };
    // A job is never cut off and run again, whatever it lost.
    const converged = spec.restart === 'never';
    const state = status.state === 'running' || converged ? 'running' : 'failed';
    return { state, converged, info: { ...info, reason } };
  }

  /** What is wrong with a running one; null when nothing is. */
  async #findFault(
    { rid }: Instance,
    { state, pid }: { readonly state: 'running' | 'unmonitored'; readonly pid: number },
    run: RunRecord | undefined,
  ): Promise<string | null> {
    if (state === 'unmonitored') return 'nobody watches over it any more';
    if (run?.halted === true) return 'it is being stopped';
    const attachment = attachmentOf(this.#containers.host, rid);
    return (await isAttached(attachment, pid)) ? null : 'its network was taken away';
  }

  /**
   * `exec` is left out: a process per look and container would be a load of its own. What was seen a
   * moment ago is not looked at again: every look is a line in the container's log of requests.
   */
  async #observeHealth(
    instance: Instance,
    spec: ContainerSpec,
    signal: AbortSignal,
  ): Promise<string> {
    const { exec, ...health } = spec.health ?? { within: 0 };
    if (health.http === undefined && health.tcp === undefined) {
      return exec === undefined ? 'none' : 'not looked at';
    }
    const nowMs = performance.now();
    const last = this.#health.get(instance.rid);
    const isFresh = nowMs - (last?.atMs ?? 0) < CONTAINER_LIMITS.observeHealthMs;
    if (last?.instance === instance.id && isFresh) return last.verdict;
    const timeoutMs = CONTAINER_LIMITS.observeProbeMsMax;
    const options = { timeoutMs, signal };
    const seen = await this.#containers.health.check(instance, { ...spec, health }, options);
    const verdict = seen ?? 'healthy';
    this.#health.set(instance.rid, { instance: instance.id, verdict, atMs: nowMs });
    return verdict;
  }

  /** The instance made for this spec; the current one first. */
  async #findRecorded(record: ResourceRecord): Promise<Instance | undefined> {
    const { store } = this.#containers;
    const current = await store.findCurrent(record.rid);
    const others = await store.list(record.rid);
    for (const instance of current === undefined ? others : [current, ...others]) {
      const stored = await store.read(instance);
      if (stored.label.specHash === record.specHash) return instance;
    }
    return undefined;
  }

  /**
   * The current one, where a run that was not undone changed of it nothing but what changes in place: it is given the
   * record's spec again, and keeps what it wrote.
   */
  async #findAdjustable(
    record: ResourceRecord,
    spec: ContainerSpec,
  ): Promise<Instance | undefined> {
    const { store } = this.#containers;
    const current = await store.findCurrent(record.rid);
    if (current === undefined) return undefined;
    const stored = await store.read(current);
    if (changeOf(stored, spec).action !== 'update') return undefined;
    const { specHash, lastOp } = labelForRecord(record);
    const label = { ...stored.label, specHash, lastOp };
    // What is in force is held to until it is taken away, which comes next.
    const held = allowanceOf(stored);
    await store.write(current, { ...stored, ...declaredFields(spec), label, held });
    return current;
  }

  async #make(record: ResourceRecord, spec: ContainerSpec, signal: AbortSignal): Promise<Instance> {
    const image = await this.#containers.images.resolve(spec.image);
    return this.#containers.make(labelForRecord(record), spec, image, signal);
  }

  /** What the spec takes away, it takes now that its run has committed. */
  async #lower(instance: Instance, spec: ContainerSpec, signal: AbortSignal): Promise<void> {
    const stored = await this.#containers.store.read(instance);
    if (stored.held === null) return;
    await this.#containers.adjust(instance, { ...stored, ...declaredFields(spec) }, signal);
  }

  async #labelOf(rid: Rid): Promise<string> {
    const { store } = this.#containers;
    const [instance] = await store.list(RidSchema.parse(rid));
    const stored = instance && (await store.read(instance).catch(() => undefined));
    return stored === undefined ? `container ${rid}` : labelText(stored.label);
  }
}
