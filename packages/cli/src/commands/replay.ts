import type { Command } from 'commander';
import type { ReplayFlags } from '../local-run/replayed-run.ts';
import { sessionOf } from '../session.ts';
import { viaOptions } from '../via.ts';

export function replayCommand(run: Command): void {
  viaOptions(run.command('replay [run]'))
    .description('a run again here, from its record and without an effect: RUN, or an audit bundle')
    .option('--script <file>', 'another script: where would it have gone another way?')
    .option('--step', 'wait for Enter before each outcome')
    .option('--journal <file>', 'without the services: what run journal RUN -o json printed')
    .option('--envelope <file>', 'what was signed, for --journal')
    .action(async (id: string | undefined, flags: ReplayFlags, command: Command) => {
      const session = sessionOf(command);
      // Only here: engine and sandbox would slow every other command down.
      const { replayRecorded } = await import('../local-run/replayed-run.ts');
      process.exitCode = await replayRecorded(session, id, flags);
    });
}
