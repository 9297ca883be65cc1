import { type Command, Option } from 'commander';
import { draftTask } from '../revision-draft.ts';
import { limitOptions, readLimits } from '../run-limits.ts';
import { deploymentOf, readScript, scriptOptions } from '../script-work.ts';
import { sessionOf } from '../session.ts';
import { type SendFlags, sendOptions, sendWork } from '../work-sending.ts';

export function taskCommand(program: Command): void {
  limitOptions(scriptOptions(sendOptions(program.command('task <file>'))))
    .description(
      'sign a script that works on what a deployment has; it declares and removes nothing',
    )
    .addOption(
      new Option('--on-failure <what>', 'undo or keep what a failed task changed')
        .choices(['undo', 'keep'])
        .default('undo'),
    )
    .action(async (file: string, flags: SendFlags, command: Command) => {
      const session = sessionOf(command);
      const { script, values } = await readScript(session, file, flags);
      const task = {
        ...deploymentOf(script, flags),
        ...{ source: script.source, caps: script.caps, limits: readLimits(flags) },
      };
      await sendWork(session, await draftTask(session, task, values, flags), flags);
    });
}
