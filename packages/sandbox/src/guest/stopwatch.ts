/** Time spent in the guest, over its turns. */
export class Stopwatch {
  #elapsedMs = 0;
  #cpuMs = 0;
  #startedAtMs = 0;
  #startedCpuMs = 0;

  start(): void {
    this.#startedAtMs = performance.now();
    this.#startedCpuMs = threadCpuMs();
  }

  stop(): void {
    this.#elapsedMs += performance.now() - this.#startedAtMs;
    this.#cpuMs += threadCpuMs() - this.#startedCpuMs;
  }

  /** What all finished turns took of the budget. */
  get spentMs(): number {
    return Math.min(this.#elapsedMs, this.#cpuMs);
  }

  /**
   * During a turn: true once time and CPU time both exceed the budget. Time alone would let a busy machine
   * use up the budget of a script; CPU time is read second because it costs a system call.
   */
  isOver(budgetMs: number): boolean {
    const elapsedMs = this.#elapsedMs + performance.now() - this.#startedAtMs;
    if (elapsedMs <= budgetMs) return false;
    return this.#cpuMs + threadCpuMs() - this.#startedCpuMs > budgetMs;
  }
}

function threadCpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
