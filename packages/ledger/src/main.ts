import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { isHyphaError, parseEnvelope } from '@hypha/protocol';
import { ConfigError, createLogger, runService } from '@hypha/service';
import { readConfig } from './config.ts';
import { startLedger } from './ledger.ts';

process.title = 'hypha-ledger';

await runService(async ({ signal, ready }) => {
  const config = readConfig();
  const log = createLogger({ name: 'hypha-ledger', level: config.logLevel });
  const genesis = config.genesis === undefined ? undefined : readGenesis(config.genesis);
  const ledger = await startLedger({ ...config, genesis, log }).catch((error: unknown) => {
    if (!isHyphaError(error, 'E_AUTHORITY')) throw error;
    throw new ConfigError([`--genesis: ${config.genesis ?? '(not set)'}: ${error.message}`]);
  });
  ready({ url: ledger.url });
  if (!signal.aborted) await once(signal, 'abort');
  await ledger.close();
  log.info('ledger stopped');
});

function readGenesis(file: string) {
  try {
    return parseEnvelope(readFileSync(file));
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'cannot be read';
    throw new ConfigError([`--genesis: ${file}: ${reason}`]);
  }
}
