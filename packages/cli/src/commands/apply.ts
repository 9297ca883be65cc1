import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import {
  Envelope,
  HyphaError,
  parseStrictJson,
  type SubmissionAccepted,
  signScript,
} from '@hypha/protocol';
import { readKeyFile } from '@hypha/protocol/node';
import { type Command, Option } from 'commander';
import { collectBundle } from '../audit-bundle.ts';
import { findVariable } from '../config.ts';
import { EXIT } from '../exit-code.ts';
import { collect } from '../option-parsers.ts';
import { type ApplyFlags, draftApply, draftDestroy, type SignedWork } from '../revision-draft.ts';
import { watchRuns } from '../run-watch.ts';
import { readSecretValues } from '../secret-values.ts';
import { type Session, sessionOf } from '../session.ts';
import { findSimulated, simulatedNote } from '../simulated-kinds.ts';
import { submitWork } from '../submission.ts';
import { viaOptions } from '../via.ts';
import { reportVerdict } from './audit.ts';

interface SendFlags extends ApplyFlags {
  detach?: true;
  signOnly?: true;
  out?: string;
  key?: string;
}

/** Says on stderr what is about to be signed, so that a person can stop it. */
async function describeWork(
  session: Session,
  { payload, nodeNames }: SignedWork,
  flags: SendFlags,
): Promise<void> {
  const { output } = session;
  const { nodes } = payload.aud;
  const simulated = await findSimulated(session, nodes, flags);
  const notes = nodes.map((id) => simulatedNote(simulated.get(id) ?? []));
  const { milliCpus, memoryBytes, storageBytes } = payload.limits.resources;
  output.note(
    `signing ${payload.mode} of ${payload.realm}/${payload.deployment} generation ${payload.generation}`,
  );
  output.note(`  nodes   ${nodeNames.map((name, at) => `${name}${notes[at] ?? ''}`).join(', ')}`);
  if (payload.mode === 'apply') {
    output.note(`  caps    ${payload.caps.join(', ') || 'none'}`);
    output.note(
      `  within  ${milliCpus / 1000} cpu, ${memoryBytes / 2 ** 20} MiB memory, ${storageBytes / 2 ** 30} GiB storage`,
    );
    output.note(`  input   ${JSON.stringify(payload.input)}`);
    const sealed = Object.keys(payload.secrets).length;
    if (sealed > 0) {
      output.note(`  secrets sealed for ${sealed} ${sealed === 1 ? 'node' : 'nodes'}`);
    }
  }
  if (payload.deleteData.length > 0)
    output.note(`  DELETES the data of ${payload.deleteData.join(', ')}`);
}

async function send(session: Session, work: SignedWork, flags: SendFlags): Promise<void> {
  await describeWork(session, work, flags);
  const signer = flags.key === undefined ? session.operator() : readKeyFile(resolve(flags.key));
  const envelope = signScript(work.payload, [signer]);
  if (flags.signOnly === true) return writeEnvelope(envelope, flags.out);
  await submitAndWatch(session, envelope, flags);
}

function writeEnvelope(envelope: Envelope, file: string | undefined): void {
  const text = `${JSON.stringify(envelope)}\n`;
  if (file === undefined) process.stdout.write(text);
  else writeFileSync(file, text);
}

async function submitAndWatch(
  session: Session,
  envelope: Envelope,
  flags: SendFlags,
): Promise<void> {
  const { output } = session;
  const { accepted, readers } = await submitWork(session, envelope, flags);
  if (accepted.existing === true) output.note('accepted before: these are the same runs');
  if (flags.detach === true) return output.item(accepted, fieldsOf(accepted));
  const several = readers.length > 1;
  process.exitCode = await watchRuns(
    session,
    readers.map(({ run, name, reader }) => ({ run, label: several ? name : '', reader })),
  );
  for (const { run, reader } of readers) {
    if (process.exitCode !== EXIT.ok) break;
    await showResult(session, run, reader);
  }
}

function fieldsOf(accepted: SubmissionAccepted): (readonly [string, string])[] {
  return [
    ['revision', accepted.revision],
    ...accepted.runs.map(({ run, node }) => ['run', `${run} on ${node}`] as const),
  ];
}

/** What the script returned, and the receipt checked down to genesis. */
async function showResult(
  session: Session,
  run: string,
  reader: Awaited<ReturnType<typeof submitWork>>['readers'][number]['reader'],
): Promise<void> {
  const { output } = session;
  const view = await reader.run(run);
  if (view.simulated) output.note('simulated: steps marked so made nothing real');
  const result = await reader.output(run).catch(() => undefined);
  if (output.format === 'table') {
    if (result !== undefined) output.line(`output        ${JSON.stringify(result.output)}`);
    output.line(`run           ${run}`);
    return verifyQuietly(session, run, reader);
  }
  output.item({ ...view, output: result?.output ?? null }, []);
}

async function verifyQuietly(
  session: Session,
  run: string,
  reader: Awaited<ReturnType<typeof submitWork>>['readers'][number]['reader'],
): Promise<void> {
  try {
    const bundle = await collectBundle(session, reader, run);
    if (reportVerdict(session, bundle, session.context.genesis) !== EXIT.ok) {
      process.exitCode = EXIT.refused;
    }
  } catch (error) {
    // The work is done and recorded; a ledger that is away only delays the proof.
    if (!(error instanceof HyphaError)) throw error;
    session.output.note(
      `receipt not verified yet: ${error.message}; later: hypha audit export ${run}`,
    );
  }
}

function sendOptions(command: Command): Command {
  return viaOptions(command)
    .option('--node <name>', 'run on this node; repeat for more', collect, [])
    .option('--realm <realm>', 'realm of the deployment')
    .option('--generation <n>', 'number of this revision; default: one above the last')
    .option('--message <text>', 'why, kept in the revision', '')
    .option('--key <file-or-name>', 'operator key to sign with')
    .option('--ttl <seconds>', 'how long the signature is good', '900')
    .option('--detach', 'do not wait for the end')
    .option('--sign-only', 'print the signed envelope, send nothing')
    .option('--out <file>', 'with --sign-only: where to write it');
}

function warningOf(variable: string): string {
  return `warning: the secret in env ${variable} can be read by every process of its container; files are safer`;
}

export function applyCommand(program: Command): void {
  sendOptions(program.command('apply <file>'))
    .description('sign a deployment script and run it')
    .option('-i, --input <k=v>', 'input of the script; repeat for more', collect, [])
    .option(
      '--secret <name=source>',
      'value of a secret: env:X, file:P, cmd:COMMAND or keep; repeat for more',
      collect,
      [],
    )
    .option('--name <deployment>', 'instead of the name in the script')
    .option('--label <k=v>', 'place on nodes with this label; repeat for more', collect, [])
    .option('--count <n>', 'on how many nodes')
    .option('--cpus <n>', 'ceiling for the deployment on one node', '2')
    .option('--memory <size>', 'ceiling for the deployment on one node', '1GiB')
    .option('--storage <size>', 'ceiling for the deployment on one node', '10GiB')
    .addOption(
      new Option('--on-failure <what>', 'undo or keep what a failed run made')
        .choices(['undo', 'keep'])
        .default('undo'),
    )
    .option('--delete-data <names>', 'volumes whose data may go when no longer declared')
    .option('--show', 'print what would be signed, and stop')
    .action(async (file: string, flags: SendFlags & { show?: true }, command: Command) => {
      const session = sessionOf(command);
      // Only here: the bundler and the sandbox would slow every other command down.
      const { compileScript, parseInput } = await import('../compile/index.ts');
      const script = await compileScript(resolve(file));
      const input = parseInput(script.deployment.input, flags.input ?? []);
      const { deployment, secretVariables } = script;
      const secrets = await readSecretValues(flags.secret ?? [], deployment.secrets, findVariable);
      const work = await draftApply(session, script, { input, secrets }, flags);
      for (const variable of secretVariables) session.output.note(warningOf(variable));
      if (flags.show === true) {
        const { source } = script;
        return session.output.item(work.payload, [
          ['payload', JSON.stringify({ ...work.payload, script: undefined }, null, 2)],
          ['source', `\n${source}`],
        ]);
      }
      await send(session, work, flags);
    });
}

export function destroyCommand(program: Command): void {
  sendOptions(program.command('destroy <deployment>'))
    .description('remove all that a deployment made; volumes are kept unless named')
    .option('--delete-data <names>', 'volumes whose data goes too, separated by commas')
    .action(async (name: string, flags: SendFlags, command: Command) => {
      const session = sessionOf(command);
      await send(session, await draftDestroy(session, name, flags), flags);
    });
}

export function submitCommand(program: Command): void {
  viaOptions(program.command('submit <file>'))
    .description('send an envelope that was signed elsewhere (- for stdin)')
    .option('--detach', 'do not wait for the end')
    .action(async (file: string, flags: SendFlags, command: Command) => {
      const session = sessionOf(command);
      const bytes = new Uint8Array(readFileSync(file === '-' ? 0 : file));
      await submitAndWatch(session, readEnvelope(bytes), flags);
    });
}

function readEnvelope(bytes: Uint8Array): Envelope {
  try {
    return Envelope.parse(parseStrictJson(bytes));
  } catch (cause) {
    throw new HyphaError('E_ENVELOPE', 'cannot read the envelope', { cause });
  }
}
