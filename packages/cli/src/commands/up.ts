import { parseBytes } from '@hypha/sal/quantity';
import type { Command } from 'commander';
import { parseInteger } from '../option-parsers.ts';
import { sessionOf } from '../session.ts';
import { runUp } from '../up/run-up.ts';

interface UpFlags {
  portBase: string;
  nodes: string;
  runners: string;
  storage: string;
  sals: string;
}

export function upCommand(program: Command): void {
  program
    .command('up')
    .description('run ledger, coordinator, Redis and nodes here, in the foreground, on loopback')
    .option('--port-base <port>', 'ledger here, coordinator one above, then the nodes', '7401')
    .option('--nodes <n>', 'how many nodes', '1')
    .option('--runners <n>', 'runners of each node', '1')
    .option('--storage <size>', 'volume pool of each node (a sparse file)', '20GiB')
    .option('--sals <mode>', 'auto, real or simulated', 'auto')
    .action((flags: UpFlags, command: Command) =>
      runUp(sessionOf(command), {
        portBase: parseInteger(flags.portBase, '--port-base', { min: 1, max: 65_000 }),
        nodes: parseInteger(flags.nodes, '--nodes', { min: 0, max: 100 }),
        runners: parseInteger(flags.runners, '--runners', { min: 1, max: 256 }),
        storageBytes: parseBytes(flags.storage),
        sals: flags.sals,
      }),
    );
}
