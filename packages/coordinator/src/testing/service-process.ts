import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** A real service process, started as `hypha up` does. */
export interface ServiceProcess {
  readonly url: string;
  readonly child: ChildProcess;
  /** What it has logged so far, JSON lines. */
  log(): string;
  /** Resolves when the process is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
}

const START_MS_MAX = 20_000;

/** Resolves when it answers requests. Throws with its log when it ends before that. */
export async function startService(
  entry: URL,
  flags: Readonly<Record<string, string | number>>,
): Promise<ServiceProcess> {
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const child = spawn(process.execPath, [fileURLToPath(entry), ...args], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let log = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-100_000);
  });
  const exited = once(child, 'exit').then(() => undefined);
  const ready = once(child, 'message', { signal: AbortSignal.timeout(START_MS_MAX) });
  const message = await Promise.race([ready.then(([first]) => first), exited]);
  if (message === undefined) throw new Error(`${entry.pathname} ended before it was ready: ${log}`);
  const { url } = (message as { ready: { url: string } }).ready;
  return {
    url,
    child,
    log: () => log,
    kill: async (signal = 'SIGTERM') => {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      await exited;
    },
  };
}
