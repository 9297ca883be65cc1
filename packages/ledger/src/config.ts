import { LOG_LEVELS, type LogLevel, listenerKeys, loadConfig } from '@hypha/service';
import { z } from 'zod';

/** Environment prefix: `HYPHA_LEDGER_STATE` and so on; flags: `--state`. */
export const LedgerConfig = z.strictObject({
  /** Folder of the store. Made when absent. */
  state: z.string().min(1),
  ...listenerKeys,
  /** 0 takes a free one. */
  port: z.int().min(0).max(65_535).default(7401),
  /** File with the genesis envelope as JSON. Needed at the first start; later it has to be the same. */
  genesis: z.string().min(1).optional(),
  /** How often nodes report. One that is silent for three times as long counts as unreachable. */
  reportIntervalMs: z.int().min(100).max(3_600_000).default(10_000),
  logLevel: z.enum(LOG_LEVELS).default('info' satisfies LogLevel),
});
export type LedgerConfig = Readonly<z.infer<typeof LedgerConfig>>;

/** Throws `ConfigError` naming every fault. */
export function readConfig(): LedgerConfig {
  return loadConfig(LedgerConfig, {
    argv: process.argv.slice(2),
    env: process.env,
    prefix: 'HYPHA_LEDGER',
  });
}
