import { type Command, Option } from 'commander';
import { collect } from '../option-parsers.ts';
import { draftApply, draftDestroy } from '../revision-draft.ts';
import { limitOptions } from '../run-limits.ts';
import { readScript, scriptOptions } from '../script-work.ts';
import { sessionOf } from '../session.ts';
import { type SendFlags, sendOptions, sendWork } from '../work-sending.ts';

/** For what declares: where, and what becomes of what is there. */
export function applyOptions(command: Command): Command {
  return limitOptions(scriptOptions(sendOptions(command)))
    .option('--label <k=v>', 'place on nodes with this label; repeat for more', collect, [])
    .option('--count <n>', 'on how many nodes')
    .option('--delete-data <names>', 'volumes whose data may go when no longer declared');
}

export function applyCommand(program: Command): void {
  applyOptions(program.command('apply <file>'))
    .description('sign a deployment script and run it')
    .addOption(
      new Option('--on-failure <what>', 'undo or keep what a failed run made')
        .choices(['undo', 'keep'])
        .default('undo'),
    )
    .option(
      '--expect <hash>',
      'only if the plan is still this one: HASH, NODE=HASH or @FILE of plan -o json; repeat for more',
      collect,
      [],
    )
    .option('--show', 'print what would be signed, and stop')
    .action(async (file: string, flags: SendFlags & { show?: true }, command: Command) => {
      const session = sessionOf(command);
      const { script, values } = await readScript(session, file, flags);
      const work = await draftApply(session, script, values, flags);
      if (flags.show !== true) return await sendWork(session, work, flags);
      session.output.item(work.payload, [
        ['payload', JSON.stringify({ ...work.payload, script: undefined }, null, 2)],
        ['source', `\n${script.source}`],
      ]);
    });
}

export function destroyCommand(program: Command): void {
  sendOptions(program.command('destroy <deployment>'))
    .description('remove all that a deployment made; volumes are kept unless named')
    .option('--delete-data <names>', 'volumes whose data goes too, separated by commas')
    .action(async (name: string, flags: SendFlags, command: Command) => {
      const session = sessionOf(command);
      await sendWork(session, await draftDestroy(session, name, flags), flags);
    });
}
