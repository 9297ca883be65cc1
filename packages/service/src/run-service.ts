import { OpenFileError } from '@hypha/protocol/node';
import { ConfigError, EXIT_BAD_CONFIG } from './configuration.ts';
import { createLogger } from './logger.ts';

export interface ServiceContext {
  /** Aborts on SIGTERM, SIGINT, or when the parent that spawned this process with a channel is gone. */
  readonly signal: AbortSignal;
  /** Tells the parent, if there is one, that requests are answered now. */
  ready(announcement: { readonly url: string }): void;
}

/** Time to stop in after the signal; then the process ends with 1. */
const STOP_MS_MAX = 30_000;

/**
 * A service process from start to end. `main` runs until its signal aborts, lets go of everything and
 * returns; then the process exits 0. A `ConfigError`, or a key file that others may use, is printed and
 * exits 78; any other error, also one that nothing caught, is logged and exits 1. A second SIGINT ends
 * the process at once.
 */
export async function runService(
  main: (context: ServiceContext) => Promise<void>,
  name: string = process.title,
): Promise<never> {
  // What a service writes is for its user alone, whoever started it.
  process.umask(0o077);
  const log = createLogger({ name });
  const stopping = new AbortController();
  const fail = (err: unknown): never => {
    log.fatal({ err }, 'service failed');
    process.exit(1);
  };
  const stop = (reason: string) => {
    if (stopping.signal.aborted) return;
    stopping.abort(new Error(reason));
    setTimeout(() => fail(new Error(`not stopped within ${STOP_MS_MAX} ms`)), STOP_MS_MAX).unref();
  };
  process.on('uncaughtException', fail);
  process.on('unhandledRejection', fail);
  process.on('SIGTERM', () => stop('SIGTERM'));
  process.once('SIGINT', () => {
    stop('SIGINT');
    // A terminal sends SIGINT to parent and children alike, and the parent sends SIGTERM on top: only a
    // second SIGINT is somebody who does not want to wait.
    process.on('SIGINT', () => process.exit(1));
  });
  process.once('disconnect', () => stop('parent process is gone'));
  try {
    await main({
      signal: stopping.signal,
      ready: (announcement) => {
        // Its failure is that the parent is gone, and that shows as `disconnect`.
        if (process.connected) process.send?.({ ready: announcement }, undefined, {}, () => {});
      },
    });
  } catch (error) {
    if (error instanceof ConfigError) {
      process.stderr.write(error.lines.map((line) => `${line}\n`).join(''));
      process.exit(EXIT_BAD_CONFIG);
    }
    if (error instanceof OpenFileError) {
      process.stderr.write(`${error.message}\n  hint: ${error.hint}\n`);
      process.exit(EXIT_BAD_CONFIG);
    }
    if (!stopping.signal.aborted || error !== stopping.signal.reason) fail(error);
  }
  process.exit(0);
}
