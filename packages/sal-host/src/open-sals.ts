/**
 * The composition root of the SALs: the only code that knows which adapters there are. The supervisor is
 * the owner; its runners open the same as guests, with the configuration the owner hands on.
 */
import { mkdir, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { HyphaError, NodeId, type Rid } from '@hypha/protocol';
import {
  composeSals,
  findRecord,
  NO_SECRETS,
  type Sal,
  type Sals,
  type SecretFiles,
  type SubvolumePool,
  writeRecord,
} from '@hypha/sal';
import { openSimulatedContainers, openSimulatedVolumes } from '@hypha/sal/simulated';
import {
  type OpenPool,
  openBtrfsVolumes,
  openPool,
  POOL_BYTES_MIN,
  type PoolConfig,
} from '@hypha/sal-btrfs';
import { type ContainerSal, createContainerSal } from '@hypha/sal-container';
import { z } from 'zod';
import { inspectMachine, type Machine, type MachineReport } from './machine.ts';
import { groupOf, SalChoice, type SalConfig } from './sal-config.ts';

/** In the root of a pool. */
const PoolMark = z.strictObject({ v: z.literal(1), node: NodeId });

/** A sparse image must not promise more than the disk under it can hold. */
const POOL_RATIO_MAX = 0.8;

const SIMULATED: SalChoice = { volume: false, container: false };

export interface OpenSalsOptions {
  readonly role: 'owner' | 'guest';
  readonly node: NodeId;
  /** Wall clock, epoch milliseconds. */
  readonly nowMs: () => number;
  /** Where containers get their secrets; default: there are none. */
  readonly secrets?: SecretFiles;
  /** Bounds opening, not use. */
  readonly signal: AbortSignal;
}

export interface OpenSals {
  readonly sals: Sals;
  /** With the choice made: what a guest is to open. */
  readonly config: SalConfig;
  readonly machine: MachineReport;
  /** Cgroup folder of the node's fences and containers. */
  readonly group: string;
  /** Bytes of the pool, or of the disk under the simulation. */
  usage(): Promise<{ sizeBytes: number; freeBytes: number }>;
  /**
   * The owner unmounts its image. Containers must be halted before: `E_SAL` while they use it. To keep
   * them running, end without closing; the next owner takes over.
   */
  close(signal: AbortSignal): Promise<void>;
}

/**
 * Throws `E_SAL_UNAVAILABLE` when a kind that must be real cannot be: asked for, chosen by the owner, or
 * real before. What was real is never replaced by a simulation behind the operator's back.
 */
export async function openSals(config: SalConfig, options: OpenSalsOptions): Promise<OpenSals> {
  const { role, node, nowMs, signal, secrets = NO_SECRETS } = options;
  if (role === 'owner') await mkdir(config.folder, { recursive: true, mode: 0o711 });
  const inspected = await inspectMachine(signal);
  const past = await findRecord(choiceFile(config.folder), SalChoice);
  const wanted = config.choice ?? chooseKinds(config, inspected.report, past);
  requireChosen(wanted, inspected.report);
  const group = config.group ?? groupOf(config.folder);
  const isFree = config.mode === 'auto' && config.choice === undefined && past?.volume !== true;
  const { pool, machine } = wanted.volume
    ? await openNodePool(config, inspected, { ...options, isFree })
    : { pool: undefined, machine: inspected };
  const choice = pool === undefined ? SIMULATED : wanted;
  try {
    if (pool !== undefined && role === 'owner') await claimPool(pool.pool, node);
    let stopUsers: ContainerSal['stopUsers'] | undefined;
    const volumes = openVolumes(config, machine, pool, async (rid, stop) => stopUsers?.(rid, stop));
    const container: Sal | ContainerSal = openContainers({
      config,
      machine,
      pool,
      volumes,
      group,
      node,
      nowMs,
      choice,
      secrets,
    });
    if ('stopUsers' in container) stopUsers = container.stopUsers;
    if (role === 'owner') await rememberChoice(config.folder, choice);
    return {
      sals: composeSals([volumes.sal, container]),
      config: { ...config, group, choice },
      machine: machine.report,
      group,
      usage: () => pool?.pool.usage() ?? diskUsage(config.folder),
      close: async (closeSignal) => pool?.close(closeSignal),
    };
  } catch (error) {
    await pool?.close(signal).catch(() => undefined);
    throw error;
  }
}

function chooseKinds(
  config: SalConfig,
  report: MachineReport,
  past: SalChoice | undefined,
): SalChoice {
  if (config.mode === 'real') return { volume: true, container: true };
  if (config.mode === 'simulated') {
    if (past?.volume !== true) return SIMULATED;
    throw new HyphaError('E_CONFLICT', `${config.folder} holds real volumes: not simulating them`, {
      hint: 'use another state folder for a simulation',
    });
  }
  const volume = report.volume.works || past?.volume === true;
  const container = volume && (report.container.works || past?.container === true);
  return { volume, container };
}

function requireChosen(choice: SalChoice, report: MachineReport): void {
  for (const kind of ['volume', 'container'] as const) {
    const { works, reason, hint } = report[kind];
    if (!choice[kind] || works) continue;
    throw new HyphaError('E_SAL_UNAVAILABLE', `this node cannot have a real ${kind}: ${reason}`, {
      where: { path: kind },
      ...(hint === undefined ? {} : { hint }),
    });
  }
}

async function rememberChoice(folder: string, choice: SalChoice): Promise<void> {
  const past = await findRecord(choiceFile(folder), SalChoice);
  const isKnown = past?.volume === choice.volume && past.container === choice.container;
  if (!isKnown) await writeRecord(choiceFile(folder), choice);
}

function choiceFile(folder: string): string {
  return join(folder, 'choice.json');
}

/** Where nothing was real yet and `auto` may choose, a pool that does not open is a reason not to. */
async function openNodePool(
  config: SalConfig,
  machine: Machine,
  options: OpenSalsOptions & { isFree: boolean },
): Promise<{ pool: OpenPool | undefined; machine: Machine }> {
  const tools = getPresent(machine.btrfsTools);
  const { role, signal, isFree } = options;
  try {
    const pool = await openPool({ config: await poolConfigOf(config), tools, role, signal });
    return { pool, machine };
  } catch (error) {
    signal.throwIfAborted();
    if (!isFree || !(error instanceof HyphaError)) throw error;
    return { pool: undefined, machine: withoutPool(machine, error) };
  }
}

function withoutPool(machine: Machine, error: HyphaError): Machine {
  const { message: reason, hint } = error;
  const failed = { works: false, driver: 'none', reason, hint } as const;
  return { ...machine, report: { ...machine.report, volume: failed, container: failed } };
}

/** Rids are the same on every node: two nodes on one pool would take each other's volumes for theirs. */
async function claimPool(pool: SubvolumePool, node: NodeId): Promise<void> {
  const file = pool.resolve('node.json');
  const mark = await findRecord(file, PoolMark);
  if (mark === undefined) return writeRecord(file, { v: 1, node });
  if (mark.node === node) return;
  throw new HyphaError('E_CONFLICT', `the pool at ${pool.root} belongs to ${mark.node}`, {
    hint: `give every node a pool of its own; remove ${file} if that node is gone for good`,
  });
}

async function poolConfigOf(config: SalConfig): Promise<PoolConfig> {
  if (config.poolPath !== undefined) return { type: 'path', path: config.poolPath };
  const { freeBytes } = await diskUsage(config.folder);
  const room = Math.floor(freeBytes * POOL_RATIO_MAX);
  return {
    type: 'image',
    file: join(config.folder, 'pool.img'),
    mountPoint: join(config.folder, 'pool'),
    sizeBytes: Math.max(Math.min(config.poolBytes, room), POOL_BYTES_MIN),
  };
}

interface Volumes {
  readonly sal: Sal;
  readonly find: (rid: Rid) => Promise<string | undefined>;
  readonly has: (rid: Rid) => Promise<boolean>;
}

function openVolumes(
  config: SalConfig,
  machine: Machine,
  pool: OpenPool | undefined,
  stopUsers: ContainerSal['stopUsers'],
): Volumes {
  if (pool === undefined) {
    const reason = reasonFor(config, machine.report.volume.reason);
    const { sal, hasVolume } = openSimulatedVolumes({ folder: simulationOf(config), reason });
    return { sal, find: async () => undefined, has: hasVolume };
  }
  const { cp } = getPresent(machine.btrfsTools);
  const { sal, findVolume } = openBtrfsVolumes({ open: pool, cp, stopUsers });
  return { sal, find: findVolume, has: async (rid) => (await findVolume(rid)) !== undefined };
}

function openContainers(options: {
  config: SalConfig;
  machine: Machine;
  pool: OpenPool | undefined;
  volumes: Volumes;
  group: string;
  node: NodeId;
  nowMs: () => number;
  choice: SalChoice;
  secrets: SecretFiles;
}): Sal | ContainerSal {
  const { config, machine, pool, volumes, group, node, nowMs, choice, secrets } = options;
  if (!choice.container || pool === undefined) {
    const reason = reasonFor(config, machine.report.container.reason);
    const folder = simulationOf(config);
    return openSimulatedContainers({ folder, node, hasVolume: volumes.has, reason });
  }
  return createContainerSal({
    machine: getPresent(machine.containerMachine),
    status: { state: 'real', driver: machine.report.container.driver },
    node,
    pool: pool.pool,
    findVolume: volumes.find,
    secrets,
    // Sockets in it have paths of at most 107 bytes, so it is not below a folder of anyone's choice.
    runFolder: join('/run', group),
    group,
    plainRegistries: config.plainRegistries,
    nowMs,
  });
}

function reasonFor(config: SalConfig, reason: string | undefined): string {
  return reason ?? (config.mode === 'simulated' ? 'simulation was asked for' : 'chosen at first');
}

function simulationOf(config: SalConfig): string {
  return join(config.folder, 'simulated');
}

async function diskUsage(folder: string): Promise<{ sizeBytes: number; freeBytes: number }> {
  const info = await statfs(folder);
  return { sizeBytes: info.blocks * info.bsize, freeBytes: info.bavail * info.bsize };
}

/** `requireChosen` has seen that the kind works, so its parts were found. */
function getPresent<T>(part: T | undefined): T {
  if (part === undefined) throw new HyphaError('E_INTERNAL', 'a SAL was chosen without its parts');
  return part;
}
