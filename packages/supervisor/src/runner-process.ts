import { type ChildProcess, spawn } from 'node:child_process';
import type { Fence } from '@hypha/sal';

/** How runner processes are started: everything but which one it is. */
export interface RunnerCommand {
  /** Absolute path of the program, and its arguments. */
  readonly command: string;
  readonly argv: readonly string[];
  /** All the environment it gets, besides its own `id` and `token`. */
  readonly env: Readonly<Record<string, string>>;
  /** Names of the variables that carry its id and its token. */
  readonly idVariable: string;
  readonly tokenVariable: string;
}

/**
 * Starts a runner inside its fence. It writes to this process's stderr, which outlives this process; it is
 * never waited for, because it may outlive us too.
 */
export function spawnRunner(
  { command, argv, env, idVariable, tokenVariable }: RunnerCommand,
  fence: Fence,
  identity: { readonly id: string; readonly token: string },
): ChildProcess {
  const entry = fence.enter(command, argv);
  const child = spawn(entry.tool, [...entry.argv], {
    env: { ...env, [idVariable]: identity.id, [tokenVariable]: identity.token },
    stdio: ['ignore', 'ignore', 'inherit'],
    detached: true,
  });
  if (child.pid !== undefined) fence.adopt(child.pid);
  child.unref();
  return child;
}
