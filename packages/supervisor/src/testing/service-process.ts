import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const START_MS_MAX = 30_000;

/** A real service process, started as `hypha up` does. Tests only. */
export class ServiceProcess {
  readonly url: string;
  readonly child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #log: () => string;

  private constructor(
    url: string,
    child: ChildProcess,
    exited: Promise<unknown>,
    log: () => string,
  ) {
    this.url = url;
    this.child = child;
    this.#exited = exited;
    this.#log = log;
  }

  /** Resolves when it answers requests. Throws with its log when it ends before that. */
  static async start(
    entry: URL,
    flags: Readonly<Record<string, string | number>>,
  ): Promise<ServiceProcess> {
    const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
    const child = spawn(process.execPath, [fileURLToPath(entry), ...args], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    let log = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      log = (log + text).slice(-200_000);
    });
    const exited = once(child, 'exit');
    const announced = once(child, 'message', { signal: AbortSignal.timeout(START_MS_MAX) });
    const message = await Promise.race([
      announced.then(([first]) => first as { ready: { url: string } }),
      exited.then(() => undefined),
    ]);
    if (message === undefined) throw new Error(`${entry.pathname} ended at once: ${log}`);
    return new ServiceProcess(message.ready.url, child, exited, () => log);
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** JSON lines so far, those of processes it started included. */
  get log(): string {
    return this.#log();
  }

  /** Resolves when the process is gone. */
  async kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    await this.#exited;
  }
}
