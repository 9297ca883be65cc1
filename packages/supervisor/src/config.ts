import { Sha256Hex } from '@hypha/protocol';
import { LOG_LEVELS, type LogLevel, listenerKeys, loadConfig } from '@hypha/service';
import { z } from 'zod';

const HttpUrl = z.url({ protocol: /^https?$/ });

/** Environment prefix: `HYPHA_SUPERVISOR_STATE` and so on; flags: `--state`. */
export const SupervisorConfig = z.strictObject({
  /** Folder with keys, journal and what the SALs keep. Made when absent. */
  state: z.string().min(1),
  ...listenerKeys,
  /** 0 takes a free one. */
  port: z.int().min(0).max(65_535).default(7403),
  /** Default: the one of the join token, kept since enrolment. */
  ledger: HttpUrl.optional(),
  coordinator: HttpUrl.optional(),
  /** File of certificates (PEM) to trust at https services. Default: those of the system. */
  tlsCa: z.string().min(1).optional(),
  /**
   * Hex digest of the genesis to trust. With `ledger` and `coordinator` it takes the place of a join token: the
   * node waits until an admin has admitted its fingerprint.
   */
  genesis: Sha256Hex.optional(),
  /** Of `hypha node add`; it or `genesis` is needed until the node has enrolled once. */
  joinToken: z.string().min(1).max(65_536).optional(),
  /** Absolute path of a unix socket, or `redis://…`. */
  redis: z
    .string()
    .regex(/^(?:\/|redis:\/\/|rediss:\/\/)/, 'the absolute path of a socket, or redis://…'),
  /**
   * File with the Redis users of this node, as `hypha-redis-acl` wrote it. Without it Redis is used as its
   * default user, who may do anything there.
   */
  redisUsers: z.string().min(1).optional(),
  /** Runner processes. */
  runners: z.int().min(0).max(64).default(1),
  /** Runs that one of them may hold at once. */
  runsPerRunner: z.int().min(1).max(64).default(16),
  /** `auto`: the real ones where they work, else simulated. */
  sals: z.enum(['auto', 'real', 'simulated']).default('auto'),
  /** Size of the pool for volumes and images when this node makes its own, bytes. Sparse. */
  storageBytes: z
    .int()
    .min(256 * 1024 ** 2)
    .default(20 * 1024 ** 3),
  /** Registries on loopback (`127.0.0.1:5000`) that are spoken to without TLS. */
  plainRegistries: z.array(z.string().max(300)).max(16).default([]),
  /** An existing btrfs subvolume to use as the pool instead. */
  poolPath: z.string().startsWith('/').optional(),
  /** What becomes of containers and mounts when the process is told to stop. */
  onStop: z.enum(['keep', 'stop']).default('keep'),
  /** Age at which the key that secrets are sealed to is changed, days. */
  sealKeyDays: z.int().min(1).max(365).default(30),
  logLevel: z.enum(LOG_LEVELS).default('info' satisfies LogLevel),
});
export type SupervisorConfig = Readonly<z.infer<typeof SupervisorConfig>>;

/** Environment prefix: `HYPHA_REDIS_ACL_STATES` and so on; flags: `--states`. */
const AclConfig = z.strictObject({
  /** State folders of the nodes that share the Redis: a JSON list. */
  states: z.array(z.string().min(1)).max(64),
  /** What Redis is given as `--aclfile`. */
  aclFile: z.string().min(1),
  logLevel: z.enum(LOG_LEVELS).default('info' satisfies LogLevel),
});
type AclConfig = Readonly<z.infer<typeof AclConfig>>;

/** Throws `ConfigError` naming every fault. */
export function readAclConfig(): AclConfig {
  return loadConfig(AclConfig, {
    argv: process.argv.slice(2),
    env: process.env,
    prefix: 'HYPHA_REDIS_ACL',
  });
}

/** Throws `ConfigError` naming every fault. */
export function readConfig(): SupervisorConfig {
  return loadConfig(SupervisorConfig, {
    argv: process.argv.slice(2),
    env: process.env,
    prefix: 'HYPHA_SUPERVISOR',
  });
}
