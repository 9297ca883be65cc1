import { HyphaError } from '@hypha/protocol';

/** Aborts when an init system, a terminal or a person asks this process to stop. */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(name, () => controller.abort(new HyphaError('E_UNAVAILABLE', `stopped by ${name}`)));
  }
  return controller.signal;
}

export function whenAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((done) => signal.addEventListener('abort', () => done(), { once: true }));
}
