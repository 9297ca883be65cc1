/** How each service is started: its entry point and its flags, and nowhere else. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { StateLayout } from '../state-layout.ts';
import type { ProcessSpec } from './process-manager.ts';
import { REDIS_USERS_FILE } from './redis-process.ts';

const entryPoint = (service: string) =>
  fileURLToPath(import.meta.resolve(`@hypha/${service}/main`));

/**
 * For many small processes on one machine: a young generation of 4 MiB instead of 16, and one helper thread
 * each. The supervisor hands them on to its runners.
 */
const NODE_FLAGS = ['--max-semi-space-size=4', '--v8-pool-size=1'] as const;

function service(
  name: string,
  room: string,
  args: readonly string[],
  state: StateLayout,
): ProcessSpec {
  return {
    name,
    command: process.execPath,
    args: [...NODE_FLAGS, entryPoint(room), ...args],
    logFile: join(state.logs, `${name}.log`),
    announces: true,
  };
}

export function ledgerProcess(state: StateLayout, port: number): ProcessSpec {
  const flags = ['--state', state.ledger, '--port', String(port), '--genesis', state.genesis];
  return service('ledger', 'ledger', flags, state);
}

export function coordinatorProcess(
  state: StateLayout,
  options: { port: number; ledger: string; genesis: string; key: string },
): ProcessSpec {
  const { port, ledger, genesis, key } = options;
  return service(
    'coordinator',
    'coordinator',
    [
      '--state',
      state.coordinator,
      '--port',
      String(port),
      '--ledger',
      ledger,
      '--genesis',
      genesis,
      '--key',
      key,
    ],
    state,
  );
}

export interface SupervisorOptions {
  readonly name: string;
  readonly port: number;
  readonly redisSocket: string;
  readonly runners: number;
  readonly storageBytes: number;
  readonly sals: string;
  /** It or `place` is needed until the node has enrolled once. */
  readonly joinToken: string | undefined;
  /** Whom to ask to be let in, without a token; also another address than the token's. */
  readonly place?: {
    readonly ledger: string;
    readonly coordinator: string;
    readonly genesis: string;
  };
  /** Certificates to trust at https services. */
  readonly caFile?: string | undefined;
  /** What becomes of containers and mounts when the process is told to stop. */
  readonly onStop: 'keep' | 'stop';
}

export function supervisorProcess(state: StateLayout, options: SupervisorOptions): ProcessSpec {
  const { name, port, redisSocket, runners, storageBytes, sals, joinToken, onStop, caFile } =
    options;
  const { place = {} } = options;
  const flags = {
    state: state.node(name),
    port,
    redis: redisSocket,
    'redis-users': join(state.node(name), REDIS_USERS_FILE),
    runners,
    'storage-bytes': storageBytes,
    sals,
    'on-stop': onStop,
    ...place,
    ...(caFile === undefined ? {} : { 'tls-ca': caFile }),
  };
  const args = Object.entries(flags).flatMap(([key, value]) => [`--${key}`, String(value)]);
  return {
    ...service(name, 'supervisor', args, state),
    // Not a flag: everyone on the machine can read a command line.
    ...(joinToken === undefined ? {} : { env: { HYPHA_SUPERVISOR_JOIN_TOKEN: joinToken } }),
  };
}
