import { readFileSync } from 'node:fs';
import { SANDBOX_LIMITS } from './limits.ts';

const RECHECK_MS_MIN = 10;
/**
 * Most turns are over by then. Of those that are not, what the process has computed so far is not counted: asking the
 * system at the start of every turn takes longer than the turn.
 */
const FIRST_LOOK_MS = 20;

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
  // Undefined before the first look
  #startedCpuMs: number | null | undefined;
  #timer: NodeJS.Timeout;

  constructor(pid: number, budgetMs: number, onOver: (spent: TimeSpent) => void) {
    this.#pid = pid;
    this.#budgetMs = budgetMs;
    this.#onOver = onOver;
    this.#timer = setTimeout(() => this.#begin(), Math.min(FIRST_LOOK_MS, budgetMs));
  }

  clear(): void {
    clearTimeout(this.#timer);
  }

  #begin(): void {
    this.#startedCpuMs = readCpuMs(this.#pid);
    this.#timer = setTimeout(() => this.#check(), this.#budgetMs);
  }

  #check(): void {
    const elapsedMs = performance.now() - this.#startedAtMs;
    const nowMs = readCpuMs(this.#pid);
    const startedMs = this.#startedCpuMs ?? null;
    const cpuMs = nowMs === null || startedMs === null ? null : nowMs - startedMs;
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
