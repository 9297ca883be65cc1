/** `hypha`: the command line (design §12). */
import { getSystemErrorMessage } from 'node:util';
import { HyphaError } from '@hypha/protocol';
import { Command, CommanderError } from 'commander';
import { applyCommand, destroyCommand } from './commands/apply.ts';
import { auditCommand } from './commands/audit.ts';
import { authorityCommand } from './commands/authority.ts';
import { cosignCommand } from './commands/cosign.ts';
import { deploymentCommand } from './commands/deployment.ts';
import { doctorCommand } from './commands/doctor.ts';
import { execCommand } from './commands/exec.ts';
import { explainCommand } from './commands/explain.ts';
import { keyCommand } from './commands/key.ts';
import { nodeCommand } from './commands/node.ts';
import { planCommand } from './commands/plan.ts';
import { logsCommand, resourceCommand } from './commands/resource.ts';
import { runCommand } from './commands/run.ts';
import { secretCommand } from './commands/secret.ts';
import { simulateCommand } from './commands/simulate.ts';
import { statusCommand } from './commands/status.ts';
import { submitCommand } from './commands/submit.ts';
import { taskCommand } from './commands/task.ts';
import { upCommand } from './commands/up.ts';
import { EXIT, exitCodeOf } from './exit-code.ts';
import { describeError } from './output.ts';

function buildProgram(): Command {
  const program = new Command('hypha')
    .description(
      'Runs signed deployment scripts on machines that do not have to trust the control plane.',
    )
    .version('0.1.0')
    .option('-o, --output <format>', 'table, json or yaml', 'table')
    .option('--state <dir>', 'state folder of hypha up (HYPHA_STATE), or of simulate')
    .option('--context <name>', 'context of the config file (HYPHA_CONTEXT)')
    .option('--ca <file>', 'certificates to trust at https services (HYPHA_CA)')
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError('(add --help for the options)')
    .exitOverride();
  const commands = [
    ...[upCommand, statusCommand, keyCommand, authorityCommand, nodeCommand],
    ...[simulateCommand, planCommand, applyCommand, taskCommand, cosignCommand, submitCommand],
    ...[destroyCommand, deploymentCommand, runCommand, execCommand, resourceCommand, logsCommand],
    ...[secretCommand, auditCommand, explainCommand, doctorCommand],
  ];
  for (const add of commands) add(program);
  return program;
}

function fail(thrown: unknown): number {
  const error = fileErrorOf(thrown) ?? thrown;
  if (error instanceof CommanderError) {
    const asked = ['commander.helpDisplayed', 'commander.help', 'commander.version'];
    return asked.includes(error.code) && error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  }
  if (error instanceof HyphaError) {
    process.stderr.write(`${describeError(error)}\n`);
    return exitCodeOf(error);
  }
  // Not foreseen: the whole of it, for whoever reports it.
  process.stderr.write(
    `hypha: internal error\n${error instanceof Error ? error.stack : String(error)}\n`,
  );
  return EXIT.unavailable;
}

const FILE_ERRORS: ReadonlySet<string> = new Set([
  ...['ENOENT', 'EACCES', 'EPERM', 'EISDIR', 'ENOTDIR', 'EEXIST'],
  ...['ENAMETOOLONG', 'EROFS', 'ENOSPC', 'EDQUOT'],
]);

/** A file of the operator's that cannot be read or written, as Node's own functions report it. */
function fileErrorOf(error: unknown): HyphaError | undefined {
  const { code, errno, path = 'the file' } = error as Partial<NodeJS.ErrnoException>;
  if (errno === undefined || code === undefined || !FILE_ERRORS.has(code)) return undefined;
  const reason = getSystemErrorMessage(errno);
  return new HyphaError(
    code === 'ENOENT' ? 'E_NOT_FOUND' : 'E_ARGUMENT',
    `cannot use ${path}: ${reason}`,
    { cause: error, hint: 'name another file, or change what is there' },
  );
}

/** `exit` drops what a slow reader of a pipe has not taken yet. */
function flush(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => stream.write('', () => resolve()));
}

// A closed pipe (`hypha … | head`) is not an error of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  throw error;
});

// Remarks may go nowhere: whoever started `up` can be gone when it is told to stop, and it must still stop
// everything.
process.stderr.on('error', () => undefined);

try {
  await buildProgram().parseAsync(process.argv);
} catch (error) {
  process.exitCode = fail(error);
}
await Promise.all([flush(process.stdout), flush(process.stderr)]);
// Clients keep sockets open for reuse; the answer has been given.
process.exit();
