import { Sha256Hex } from '@hypha/protocol';
import { LOG_LEVELS, listenerKeys, loadConfig } from '@hypha/service';
import { z } from 'zod';

/** Configuration of `hypha-coordinator`: file, environment (`HYPHA_COORDINATOR_…`), flags. */
export const CoordinatorConfig = z.object({
  ...listenerKeys,
  /** 0 takes a free one. */
  port: z.int().min(0).max(65_535).default(7402),
  /** Folder of the store; made when absent. */
  state: z.string().min(1),
  ledger: z.url({ protocol: /^https?$/ }).default('http://127.0.0.1:7401'),
  /** File of certificates (PEM) to trust at an https ledger. Default: those of the system. */
  tlsCa: z.string().min(1).optional(),
  /** File of its private key (PEM). Default: `coordinator.pem` in the state folder; made when absent. */
  key: z.string().min(1).optional(),
  /** Digest the authority has to start with. Without it the first genesis the ledger shows is kept. */
  genesis: Sha256Hex.optional(),
  /** Time between two readings of the ledger when nobody asks, milliseconds. */
  ledgerPollMs: z.int().min(100).max(600_000).default(5_000),
  /** After an envelope's `exp`, how long its node may still answer, milliseconds. */
  expiryGraceMs: z.int().min(0).max(3_600_000).default(60_000),
  /** How long an ended revision can be read, days (design §10). */
  retentionDays: z.int().min(1).max(3650).default(30),
  logLevel: z.enum(LOG_LEVELS).default('info'),
});
export type CoordinatorConfig = z.infer<typeof CoordinatorConfig>;

/** Throws `ConfigError`. */
export function readConfig(): Readonly<CoordinatorConfig> {
  return loadConfig(CoordinatorConfig, {
    argv: process.argv.slice(2),
    env: process.env,
    prefix: 'HYPHA_COORDINATOR',
  });
}

/** Reported at `/openapi.json`. */
export const VERSION = '0.1.0';
