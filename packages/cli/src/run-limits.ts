import { HyphaError, type ResourceLimits } from '@hypha/protocol';
import { parseBytes } from '@hypha/sal/quantity';
import type { Command } from 'commander';
import { parseDuration } from './option-parsers.ts';

/** What a run may use, as flags. */
export interface LimitFlags {
  readonly cpus?: string;
  readonly memory?: string;
  readonly storage?: string;
  readonly deadline?: string;
}

const WALL_MS_MAX = 7 * 86_400_000;

export function limitOptions(command: Command): Command {
  return command
    .option('--cpus <n>', 'ceiling for the deployment on one node', '2')
    .option('--memory <size>', 'ceiling for the deployment on one node', '1GiB')
    .option('--storage <size>', 'ceiling for the deployment on one node', '10GiB')
    .option('--deadline <time>', 'the run has to end so long after its start; at most 7d', '10m');
}

/** `limits` of the payload. Throws `E_ARGUMENT` naming the flag that does not fit. */
export function readLimits(flags: LimitFlags): { wallMs: number; resources: ResourceLimits } {
  const resources = {
    milliCpus: Math.round(Number(flags.cpus ?? '2') * 1000),
    memoryBytes: parseBytes(flags.memory ?? '1GiB'),
    storageBytes: parseBytes(flags.storage ?? '10GiB'),
  };
  if (!Number.isSafeInteger(resources.milliCpus) || resources.milliCpus < 0) {
    throw new HyphaError('E_ARGUMENT', `--cpus: expected a number, got ${flags.cpus}`, {
      hint: 'write it like 2 or 0.5',
    });
  }
  const { deadline = '10m' } = flags;
  const wallMs = parseDuration(deadline, '--deadline') * 1000;
  if (wallMs <= WALL_MS_MAX) return { wallMs, resources };
  throw new HyphaError('E_ARGUMENT', `--deadline: at most 7d, got ${deadline}`, {
    hint: 'split the work, or sign it again later',
  });
}
