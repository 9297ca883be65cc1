import { openNodeKeys, readBoot } from '@hypha/identity';
import type { NodeId } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { SecretFiles } from '@hypha/sal';
import { ConfigError, createLogger, readCa, runService } from '@hypha/service';
import { systemClock } from './clock.ts';
import { readConfig, type SupervisorConfig } from './config.ts';
import type { NodeSals } from './node-inventory.ts';
import type { RedisUsers } from './redis-users.ts';
import { findRedisUsers } from './redis-users-file.ts';
import { rekeyAtStart } from './rekey-at-start.ts';
import { confineRunner } from './runner-confinement.ts';
import { SecretFolder } from './secret-folder.ts';
import { SecretVault } from './secret-vault.ts';
import { openStateFolder, type StateFolder } from './state-folder.ts';
import { Supervisor } from './supervisor.ts';

const DAY_MS = 86_400_000;

/** The SALs of this machine. */
export interface OpenedSals extends NodeSals {
  /** After everything that used them was stopped. A process that keeps them up ends without. */
  close(): Promise<void>;
}

export interface NodeProcess {
  /** The program of a runner process. */
  readonly runnerFile: string;
  openSals(options: {
    readonly config: SupervisorConfig;
    readonly folder: StateFolder;
    readonly node: NodeId;
    readonly secrets: SecretFiles;
    readonly signal: AbortSignal;
  }): Promise<OpenedSals>;
}

async function readRedisUsers({
  redisUsers: file,
}: SupervisorConfig): Promise<RedisUsers | undefined> {
  if (file === undefined) return undefined;
  const users = await findRedisUsers(file);
  if (users === undefined) throw new ConfigError([`--redis-users: ${file}: no such file`]);
  return users;
}

/** The supervisor as a process, from its configuration to its end. */
export async function runNodeProcess({ runnerFile, openSals }: NodeProcess): Promise<never> {
  return await runService(async ({ signal, ready }) => {
    const config = readConfig();
    const log = createLogger({ name: process.title, level: config.logLevel });
    const folder = await openStateFolder(config.state);
    const keys = await rekeyAtStart(
      {
        ...{ folder, log, clock: systemClock, verifier: nodeVerifier },
        keys: await openNodeKeys(folder.identity, systemClock.nowMs),
        ledgerUrl: config.ledger,
        ca: readCa(config.tlsCa),
      },
      signal,
    );
    const secrets = new SecretVault({
      ...{ keys, log, clock: systemClock },
      folder: new SecretFolder(folder.secrets),
      sealKeyAgeMs: config.sealKeyDays * DAY_MS,
    });
    const host = await openSals({ config, folder, node: keys.origin, secrets, signal });
    try {
      const supervisor = await Supervisor.start({
        ...{ config, folder, keys, host, secrets, log },
        redisUsers: await readRedisUsers(config),
        boot: await readBoot(() => systemClock.nowMs()),
        runner: await confineRunner(
          { command: process.execPath, argv: [...process.execArgv, runnerFile] },
          signal,
        ),
        verifier: nodeVerifier,
        clock: systemClock,
      });
      log.info({ url: supervisor.url, node: keys.nodeId }, 'supervisor listens');
      ready({ url: supervisor.url });
      if (!signal.aborted) {
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      }
      await supervisor.close();
    } finally {
      if (config.onStop === 'stop') await host.close();
    }
  });
}
