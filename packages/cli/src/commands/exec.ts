import { HyphaError, type RunId } from '@hypha/protocol';
import type { Command } from 'commander';
import { z } from 'zod';
import { parseDuration } from '../option-parsers.ts';
import { draftTask } from '../revision-draft.ts';
import { sessionOf } from '../session.ts';
import { type SendFlags, sendWork, taskSendOptions } from '../work-sending.ts';
import { findResource, parseResourcePath } from './resource.ts';

/** One call, its command and name as input: nothing is spliced into what is signed. */
const SOURCE = `import { container } from 'hypha';
export default async ({ name, command, timeout }) => {
  const found = await container.get(name);
  return await found.exec(command, { timeout });
};
`;

const Executed = z.object({
  exitCode: z.int(),
  stdout: z.string(),
  stderr: z.string(),
  simulated: z.boolean(),
});

interface Flags extends SendFlags {
  readonly deployment?: string;
  readonly within: string;
}

/** After the command may have ended: to find the container, and to say what came of it. */
const SLACK_MS = 60_000;
const WITHIN_SECONDS_MAX = 3600;
const EXIT_CODE_MAX = 255;

export function execCommand(program: Command): void {
  taskSendOptions(program.command('exec <name> <command...>'))
    .usage('[options] <name> -- <command...>')
    .description(
      'run a command in a container, named NAME or DEPLOYMENT/NAME; ends with its exit code, 1 when it could not be run',
    )
    .option('-d, --deployment <name>', 'whose container it is')
    .option('--realm <realm>', 'realm of the deployment', 'default')
    .option('--node <name>', 'on this node, when several have it')
    .option('--within <time>', 'the command is killed after so long; at most 1h', '60s')
    .action(
      async (
        path: string,
        argv: string[],
        flags: Omit<Flags, 'node'> & { node?: string; realm: string },
        command: Command,
      ) => {
        const session = sessionOf(command);
        const { node, ...rest } = flags;
        const seconds = parseDuration(flags.within, '--within');
        if (seconds > WITHIN_SECONDS_MAX) {
          throw new HyphaError('E_ARGUMENT', `--within: at most 1h, got ${flags.within}`, {
            hint: 'let the container do long work by itself',
          });
        }
        const { deployment = flags.deployment, name } = parseResourcePath(path);
        if (flags.deployment !== undefined && flags.deployment !== deployment) {
          throw new HyphaError('E_ARGUMENT', `${path} is not of deployment ${flags.deployment}`, {
            hint: 'leave out --deployment, or say only NAME',
          });
        }
        const found =
          deployment === undefined
            ? await findResource(
                session,
                path,
                { ...flags, ...(node === undefined ? {} : { node }) },
                'container',
              )
            : undefined;
        const task = {
          ...{ realm: flags.realm, deployment: deployment ?? found?.deployment ?? '' },
          ...{ source: SOURCE, caps: ['container'] },
          limits: { wallMs: seconds * 1000 + SLACK_MS },
        };
        const on = node ?? found?.on;
        const work = await draftTask(
          session,
          task,
          { input: { name, command: argv, timeout: `${seconds}s` }, secrets: {} },
          { ...rest, ...(on === undefined ? {} : { node: [on] }) },
        );
        const [first, second] = work.nodeNames;
        if (second !== undefined) {
          throw new HyphaError('E_ARGUMENT', `${path} is on ${work.nodeNames.join(', ')}`, {
            hint: `name one: --node ${first}`,
          });
        }
        await sendWork(session, work, rest, {
          quiet: true,
          tells: 'failure',
          show: async ({ run }, output) => showExecuted(session, run, output),
        });
      },
    );
}

type Shown = Pick<ReturnType<typeof sessionOf>, 'output'>;

function showExecuted({ output }: Shown, run: RunId, text: string | undefined): void {
  const done = Executed.safeParse(JSON.parse(text ?? 'null'));
  if (!done.success) {
    throw new HyphaError('E_CONFLICT', `${run} returned no result of a command`, {
      cause: done.error,
    });
  }
  const { exitCode, stdout, stderr, simulated } = done.data;
  if (output.format === 'table') {
    process.stdout.write(stdout);
    process.stderr.write(stderr);
    if (simulated) output.note('simulated: nothing ran');
  } else {
    output.item({ run, ...done.data }, []);
  }
  process.exitCode = Math.min(Math.max(exitCode, 0), EXIT_CODE_MAX);
}
