/** `hypha-runner` on SALs that count. Started by tests only. */
import { nodeVerifier } from '@hypha/protocol/node';
import { createLogger, runService } from '@hypha/service';
import { z } from 'zod';
import { readRunnerConfig } from '../../../runner/src/config.ts';
import { engineClock } from '../../../runner/src/engine-clock.ts';
import { serveRuns } from '../../../runner/src/runner.ts';
import { SandboxPool } from '../../../sandbox/src/index.ts';
import { CountedSals } from './counted-sals.ts';

await runService(async ({ signal }) => {
  const config = readRunnerConfig(process.argv.slice(2));
  const { folder } = z.object({ folder: z.string() }).parse(config.sals);
  await serveRuns({
    config,
    log: createLogger({ name: `runner-${config.runner}`, level: config.logLevel }),
    sals: new CountedSals(folder).sals(),
    guests: new SandboxPool(),
    clock: engineClock,
    verifier: nodeVerifier,
    signal,
  });
}, 'hypha-counted-runner');
