import { type Command, Option } from 'commander';
import type { FileSimulationFlags } from '../local-run/simulated-file.ts';
import { collect } from '../option-parsers.ts';
import { limitOptions } from '../run-limits.ts';
import { sessionOf } from '../session.ts';

export function simulateCommand(program: Command): void {
  limitOptions(program.command('simulate <file>'))
    .description(
      'run a script here on simulated volumes and containers: no service, key or network; --state DIR keeps what it made for the next',
    )
    .option('-i, --input <k=v>', 'input of the script; repeat for more', collect, [])
    .option('--label <k=v>', 'label of the node; repeat for more', collect, [])
    .option('--name <deployment>', 'instead of the name in the script')
    .option('--realm <realm>', 'realm of the deployment')
    .option(
      '--fail <step=code>',
      'a step, or a resource by name, fails; repeat for more',
      collect,
      [],
    )
    .option('--crash-every-step', 'again with a crash before and after every write and effect')
    .addOption(
      new Option('--on-failure <what>', 'undo or keep what a failed run made')
        .choices(['undo', 'keep'])
        .default('undo'),
    )
    .option('--delete-data <names>', 'volumes whose data may go when no longer declared')
    .action(async (file: string, flags: FileSimulationFlags, command: Command) => {
      const session = sessionOf(command);
      // Only here: engine, sandbox and bundler would slow every other command down.
      const { simulateFile } = await import('../local-run/simulated-file.ts');
      process.exitCode = await simulateFile(session, file, flags);
    });
}
