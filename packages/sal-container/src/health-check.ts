/** Whether a container does what it is for, asked from the node over the container's own address. */
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { HyphaError, isHyphaError } from '@hypha/protocol';
import type { HealthSpec } from '@hypha/sal';
import { request } from 'undici';
import { CONTAINER_LIMITS } from './container-limits.ts';

/** Why it is not healthy, as a person would say it; null when it is. */
export type HealthVerdict = string | null;

export interface HealthTarget {
  readonly address: string;
  /** Runs a command in the container and answers with its exit code. */
  exec(command: readonly string[], signal: AbortSignal): Promise<number>;
}

/** One look. All that the spec names must be well. Throws only the signal's reason. */
export async function checkHealth(
  health: HealthSpec,
  target: HealthTarget,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<HealthVerdict> {
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(options.timeoutMs)]);
  try {
    const verdicts = await Promise.all([
      health.http === undefined ? null : checkHttp(target.address, health.http, signal),
      health.tcp === undefined ? null : checkTcp(target.address, health.tcp.port, signal),
      health.exec === undefined ? null : checkExec(target, health.exec, signal),
    ]);
    return verdicts.find((verdict) => verdict !== null) ?? null;
  } catch (error) {
    options.signal.throwIfAborted();
    if (signal.aborted) return `no answer within ${options.timeoutMs} ms`;
    throw error;
  }
}

/**
 * Looks until it is healthy. Throws `E_HEALTH` after `health.within`, or at once when the container has
 * ended, with the last verdict and the end of its log.
 */
export async function waitHealthy(
  health: HealthSpec,
  target: HealthTarget,
  options: {
    readonly name: string;
    readonly signal: AbortSignal;
    /** How it ended, or null while it runs. */
    findEnd(): Promise<string | null>;
    readTail(): Promise<readonly string[]>;
  },
): Promise<void> {
  const { name, signal } = options;
  const deadline = performance.now() + health.within;
  let delayMs: number = CONTAINER_LIMITS.pollMsMin;
  let last: string | undefined;
  for (;;) {
    const end = await options.findEnd();
    const leftMs = Math.max(1, deadline - performance.now());
    const timeoutMs = Math.ceil(Math.min(leftMs, CONTAINER_LIMITS.probeMsMax));
    const verdict = end ?? (await checkHealth(health, target, { timeoutMs, signal }));
    if (verdict === null) return;
    const isOver = performance.now() >= deadline;
    if (end !== null || isOver) {
      // A look that the end of the time cut short says less than the one before it.
      const said = end ?? last ?? verdict;
      const when = end === null ? `within ${health.within} ms` : 'before it ended';
      const what = `container ${name} did not become healthy ${when}: ${said}`;
      const details = { verdict: said, log: await options.readTail() };
      throw new HyphaError('E_HEALTH', what, { hint: `hypha logs ${name}`, details });
    }
    last = verdict;
    await sleep(Math.min(delayMs, leftMs), undefined, { signal });
    delayMs = Math.min(delayMs * 2, CONTAINER_LIMITS.pollMsMax);
  }
}

async function checkHttp(
  address: string,
  { port, path }: { port: number; path: string },
  signal: AbortSignal,
): Promise<HealthVerdict> {
  try {
    const answer = await request(`http://[${address}]:${port}${path}`, { signal, reset: true });
    await answer.body.dump({ limit: 64 * 1024, signal });
    const isWell = answer.statusCode >= 200 && answer.statusCode < 400;
    return isWell ? null : `HTTP ${answer.statusCode} from port ${port}`;
  } catch (error) {
    signal.throwIfAborted();
    return `no HTTP answer from port ${port} (${codeOf(error)})`;
  }
}

async function checkTcp(
  address: string,
  port: number,
  signal: AbortSignal,
): Promise<HealthVerdict> {
  const { promise, resolve } = Promise.withResolvers<HealthVerdict>();
  const socket = connect({ host: address, port, signal });
  socket.once('connect', () => resolve(null));
  socket.once('error', (error) => resolve(`no connection to port ${port} (${codeOf(error)})`));
  const verdict = await promise;
  socket.destroy();
  signal.throwIfAborted();
  return verdict;
}

async function checkExec(
  target: HealthTarget,
  command: readonly string[],
  signal: AbortSignal,
): Promise<HealthVerdict> {
  try {
    const exitCode = await target.exec(command, signal);
    return exitCode === 0 ? null : `${command[0]} exited with ${exitCode}`;
  } catch (error) {
    signal.throwIfAborted();
    // It may be ending just now; a command it does not have is the script's mistake.
    if (isHyphaError(error, 'E_SAL')) return `${command[0]} could not be run`;
    throw error;
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'error';
}
