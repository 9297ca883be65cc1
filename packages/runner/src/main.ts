/** `hypha-runner`: one of a node's runner processes, started and fenced by its supervisor. */
import { nodeVerifier } from '@hypha/protocol/node';
import { openSals } from '@hypha/sal-host';
import { SandboxPool } from '@hypha/sandbox';
import { createLogger, runService } from '@hypha/service/process';
import { readRunnerConfig } from './config.ts';
import { engineClock } from './engine-clock.ts';
import { RunSecrets } from './run-secrets.ts';
import { serveRuns } from './runner.ts';

process.title = 'hypha-runner';

/** Finding tools and a mounted pool; the supervisor made everything there is to make. */
const OPEN_MS_MAX = 60_000;

await runService(async ({ signal }) => {
  const config = readRunnerConfig(process.argv.slice(2));
  const { runner, logLevel: level, node } = config;
  const log = createLogger({ name: 'hypha-runner', level }).child({ runner });
  const secrets = new RunSecrets();
  const opened = await openSals(config.sals, {
    role: 'guest',
    node,
    nowMs: engineClock.nowMs,
    secrets,
    signal: AbortSignal.any([signal, AbortSignal.timeout(OPEN_MS_MAX)]),
  });
  await serveRuns({
    config,
    log,
    sals: opened.sals,
    secrets,
    guests: new SandboxPool(),
    clock: engineClock,
    verifier: nodeVerifier,
    signal,
  });
  await opened.close(AbortSignal.timeout(OPEN_MS_MAX));
});
