import { readFileSync } from 'node:fs';
import { SANDBOX_LIMITS } from './limits.ts';

const RECHECK_MS_MIN = 10;

export interface TimeSpent {
  readonly elapsedMs: number;
  /** Of the process's main thread; null where the system does not tell. */
  readonly cpuMs: number | null;
}

/**
 * Fires once when a process has computed for `budgetMs`. One that was kept from computing, because
 * the machine is busy, gets more time: up to `starvedFactorMax` times the budget.
 */
export class CpuDeadline {
  readonly #pid: number;
  readonly #budgetMs: number;
  readonly #onOver: (spent: TimeSpent) => void;
  readonly #startedAtMs = performance.now();
  readonly #startedCpuMs: number | null;
  #timer: NodeJS.Timeout;

  constructor(pid: number, budgetMs: number, onOver: (spent: TimeSpent) => void) {
    this.#pid = pid;
    this.#budgetMs = budgetMs;
    this.#onOver = onOver;
    this.#startedCpuMs = readCpuMs(pid);
    this.#timer = setTimeout(() => this.#check(), budgetMs);
  }

  clear(): void {
    clearTimeout(this.#timer);
  }

  #check(): void {
    const elapsedMs = performance.now() - this.#startedAtMs;
    const nowMs = readCpuMs(this.#pid);
    const isTold = nowMs !== null && this.#startedCpuMs !== null;
    const cpuMs = isTold ? nowMs - this.#startedCpuMs : null;
    const leftMs = this.#budgetMs - (cpuMs ?? elapsedMs);
    const isStarved = elapsedMs < SANDBOX_LIMITS.starvedFactorMax * this.#budgetMs;
    if (leftMs <= 0 || !isStarved) this.#onOver({ elapsedMs, cpuMs });
    else this.#timer = setTimeout(() => this.#check(), Math.max(RECHECK_MS_MIN, leftMs));
  }
}

/** CPU time of a process's main thread: the first number, in ns, of Linux's /proc/PID/schedstat. */
function readCpuMs(pid: number): number | null {
  try {
    return Number.parseInt(readFileSync(`/proc/${pid}/schedstat`, 'latin1'), 10) / 1e6;
  } catch {
    return null;
  }
}
