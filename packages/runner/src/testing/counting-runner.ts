/** A runner process like `main.ts`, on volumes that count what is done to them. Started by tests only. */
import { nodeVerifier } from '@hypha/protocol/node';
import { SandboxPool } from '@hypha/sandbox';
import { createLogger, runService } from '@hypha/service/process';
import { readRunnerConfig } from '../config.ts';
import { engineClock } from '../engine-clock.ts';
import { serveRuns } from '../runner.ts';
import { CountedVolumes } from './counted-volumes.ts';

await runService(async ({ signal }) => {
  const config = readRunnerConfig(process.argv.slice(2));
  await serveRuns({
    config,
    log: createLogger({ name: config.runner, level: 'debug' }),
    sals: new CountedVolumes(config.sals.folder).sals(),
    guests: new SandboxPool(),
    clock: engineClock,
    verifier: nodeVerifier,
    signal,
  });
}, 'hypha-counting-runner');
