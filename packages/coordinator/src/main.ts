import { nodeVerifier } from '@hypha/protocol/node';
import { createLogger, runService } from '@hypha/service';
import { systemClock } from './clock.ts';
import { readConfig } from './config.ts';
import { startCoordinator } from './coordinator.ts';

process.title = 'hypha-coordinator';

await runService(async ({ signal, ready }) => {
  const config = readConfig();
  const log = createLogger({ name: process.title, level: config.logLevel });
  const coordinator = await startCoordinator({
    config,
    verifier: nodeVerifier,
    clock: systemClock,
    log,
  });
  log.info({ url: coordinator.url }, 'coordinator listens');
  ready({ url: coordinator.url });
  if (!signal.aborted) {
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  }
  await coordinator.close();
});
