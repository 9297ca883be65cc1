import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { SeededRandom } from '@hypha/testkit';
import type { Fleet } from '../../test/fixtures/fleet.ts';
import { runnerPids } from '../../test/fixtures/node-world.ts';
import { commandOf, processTree } from '../../test/fixtures/process-tree.ts';

/** What is done to the fleet, and how often next to the others. */
const FAULTS = {
  'runner killed': 6,
  'runner stopped': 1,
  'sandbox host killed': 4,
  'tool killed': 2,
  'supervisor killed': 4,
  'supervisor stopped': 2,
  'redis killed': 2,
  'redis stopped': 2,
  'redis wiped': 1,
  'coordinator killed': 2,
  'fleet killed': 1,
} as const;
type Fault = keyof typeof FAULTS;

const PAUSE_MS = { min: 300, max: 4_000 };
const STOPPED_MS = { min: 200, max: 3_000 };
/** Longer than a supervisor waits for a silent runner. */
const RUNNER_STOPPED_MS = 20_000;

/** Kills, stops and wipes at random until it is told to end; then everything runs again. */
export class Monkey {
  readonly #fleet: Fleet;
  readonly #random: SeededRandom;
  // fault → how often
  readonly counts = new Map<Fault, number>();
  readonly #thaws: Promise<void>[] = [];

  constructor(fleet: Fleet, random: SeededRandom) {
    this.#fleet = fleet;
    this.#random = random;
  }

  get kills(): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0);
  }

  async rage(signal: AbortSignal): Promise<void> {
    const urn = Object.entries(FAULTS).flatMap(([fault, weight]) =>
      Array.from({ length: weight }, () => fault as Fault),
    );
    while (!signal.aborted) {
      await delay(this.#random.int(PAUSE_MS.min, PAUSE_MS.max));
      const fault = this.#random.pick(urn);
      if (await this.#inflict(fault)) this.counts.set(fault, (this.counts.get(fault) ?? 0) + 1);
      // Who is never up between two faults gets nowhere, and shows nothing.
      await this.#untilUp(signal);
    }
    await Promise.all(this.#thaws);
  }

  async #untilUp(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const isUp = await this.#fleet.node.listRuns({ limit: 1 }).then(
        () => true,
        () => false,
      );
      if (isUp && runnerPids(this.#fleet.state).length > 0) return;
      await delay(PAUSE_MS.min);
    }
  }

  /** False when there was nobody to do it to. */
  async #inflict(fault: Fault): Promise<boolean> {
    const fleet = this.#fleet;
    switch (fault) {
      case 'runner killed':
        return this.#signalOne(runnerPids(fleet.state), 'SIGKILL');
      case 'runner stopped':
        return this.#stop(runnerPids(fleet.state), RUNNER_STOPPED_MS);
      case 'sandbox host killed':
        return this.#signalOne(this.#below(/^hypha-sandbox/), 'SIGKILL');
      case 'tool killed':
        return this.#signalOne(this.#below(/(?:^|\/)(?:runc|btrfs|umoci|ip)\b/), 'SIGKILL');
      case 'supervisor killed':
        return this.#signalOne(this.#service('node-1'), 'SIGKILL');
      case 'supervisor stopped':
        return this.#stop(this.#service('node-1'), this.#stoppedMs());
      case 'redis killed':
        return this.#signalOne(this.#service('redis'), 'SIGKILL');
      case 'redis stopped':
        return this.#stop(this.#service('redis'), this.#stoppedMs());
      case 'redis wiped':
        rmSync(join(fleet.state, 'redis', 'appendonlydir'), { recursive: true, force: true });
        return this.#signalOne(this.#service('redis'), 'SIGKILL');
      case 'coordinator killed':
        return this.#signalOne(this.#service('coordinator'), 'SIGKILL');
      case 'fleet killed':
        await Promise.all(this.#thaws);
        await fleet.kill();
        await fleet.up();
        return true;
      default:
        return fault satisfies never;
    }
  }

  #stoppedMs(): number {
    return this.#random.int(STOPPED_MS.min, STOPPED_MS.max);
  }

  /** None while it is being restarted. */
  #service(name: string): number[] {
    const pid = this.#fleet.findPid(name);
    return pid === undefined || commandOf(pid) === '' ? [] : [pid];
  }

  #below(command: RegExp): number[] {
    const trees = runnerPids(this.#fleet.state).flatMap((pid) => processTree(pid).slice(1));
    return trees.filter((pid) => command.test(commandOf(pid)));
  }

  #stop(pids: readonly number[], forMs: number): boolean {
    const [pid] = pids;
    if (pid === undefined || !this.#signalOne([pid], 'SIGSTOP')) return false;
    this.#thaws.push(delay(forMs).then(() => void this.#signalOne([pid], 'SIGCONT')));
    return true;
  }

  #signalOne(pids: readonly number[], signal: NodeJS.Signals): boolean {
    if (pids.length === 0) return false;
    try {
      process.kill(this.#random.pick(pids), signal);
      return true;
    } catch {
      // It ended just now.
      return false;
    }
  }
}
