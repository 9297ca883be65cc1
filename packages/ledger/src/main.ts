import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { isHyphaError, parseEnvelope } from '@hypha/protocol';
import { ConfigError, createLogger, runService } from '@hypha/service';
import { type LedgerConfig, readConfig } from './config.ts';
import { startLedger } from './ledger.ts';
import { LogDamage } from './log-damage.ts';

process.title = 'hypha-ledger';

await runService(async ({ signal, ready }) => {
  const config = readConfig();
  const log = createLogger({ name: 'hypha-ledger', level: config.logLevel });
  const genesis = config.genesis === undefined ? undefined : readGenesis(config.genesis);
  const ledger = await startLedger({ ...config, genesis, log }).catch((error: unknown) => {
    throw unusableState(error, config) ?? error;
  });
  ready({ url: ledger.url });
  if (!signal.aborted) await once(signal, 'abort');
  await ledger.close();
  log.info('ledger stopped');
});

/** What no restart repairs: said in lines, and the exit code that tells supervisors not to try again. */
function unusableState(error: unknown, config: LedgerConfig): ConfigError | undefined {
  if (error instanceof LogDamage) {
    const lines = [`--state: ${config.state}: ${error.message}`, ...error.evidence, error.hint];
    return new ConfigError(lines);
  }
  if (isHyphaError(error, 'E_AUTHORITY'))
    return new ConfigError([`--genesis: ${config.genesis ?? '(not set)'}: ${error.message}`]);
  if (isHyphaError(error, 'E_ARGUMENT'))
    return new ConfigError([`--state: ${config.state}: ledger.pem: ${error.message}`]);
  return undefined;
}

function readGenesis(file: string) {
  try {
    return parseEnvelope(readFileSync(file));
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'cannot be read';
    throw new ConfigError([`--genesis: ${file}: ${reason}`]);
  }
}
