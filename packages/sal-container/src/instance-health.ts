/** Health of one instance: its address, its commands and the end of its log, for `health-check.ts`. */
import type { ContainerSpec } from '@hypha/sal';
import { execInContainer } from './container-exec.ts';
import type { ContainerHost, Instance } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { readLogTail } from './container-log.ts';
import { checkHealth, type HealthTarget, type HealthVerdict, waitHealthy } from './health-check.ts';
import type { InstanceRuntime } from './instance-runtime.ts';
import type { InstanceStore } from './instance-store.ts';
import { attachmentOf } from './network-attachment.ts';

export class InstanceHealth {
  readonly #host: ContainerHost;
  readonly #store: InstanceStore;
  readonly #runtime: InstanceRuntime;

  constructor(deps: { host: ContainerHost; store: InstanceStore; runtime: InstanceRuntime }) {
    this.#host = deps.host;
    this.#store = deps.store;
    this.#runtime = deps.runtime;
  }

  /** One look; null when it is healthy or has no health of its own. */
  async check(
    instance: Instance,
    spec: ContainerSpec,
    options: { timeoutMs: number; signal: AbortSignal },
  ): Promise<HealthVerdict> {
    if (spec.health === undefined) return null;
    return checkHealth(spec.health, this.#target(instance, spec), options);
  }

  /** Throws `E_HEALTH`. */
  async wait(
    instance: Instance,
    spec: ContainerSpec,
    options: { name: string; signal: AbortSignal },
  ): Promise<void> {
    if (spec.health === undefined) return;
    const { name, signal } = options;
    await waitHealthy(spec.health, this.#target(instance, spec), {
      name,
      signal,
      readTail: () => readLogTail(this.#store.logPath(instance), CONTAINER_LIMITS.logTailLines),
      findEnd: async () => {
        const { state } = await this.#runtime.status(instance, signal);
        if (state === 'running') return null;
        await this.#runtime.waitForMonitor(instance, signal);
        const exit = await this.#store.findExit(instance);
        return exit === undefined ? 'it ended' : `it exited with ${exit.code}`;
      },
    });
  }

  #target(instance: Instance, spec: ContainerSpec): HealthTarget {
    return {
      address: attachmentOf(this.#host, instance.rid).address,
      exec: async (command, signal) => {
        const timeoutMs = CONTAINER_LIMITS.probeMsMax;
        const request = { spec, command, key: 'health', timeoutMs, signal };
        const outcome = await execInContainer(this.#host, this.#store, instance, request);
        return outcome.exitCode;
      },
    };
  }
}
