import { resolve } from 'node:path';
import { type Envelope, HyphaError, isHyphaError, type Signer, signScript } from '@hypha/protocol';
import { type Command, Option } from 'commander';
import { findVariable } from '../config.ts';
import { carriedAuthority, checkSignatures } from '../cosignature.ts';
import { collect } from '../option-parsers.ts';
import { type ApplyFlags, draftApply, draftDestroy, type SignedWork } from '../revision-draft.ts';
import { limitOptions } from '../run-limits.ts';
import { readSecretValues } from '../secret-values.ts';
import { type Session, sessionOf } from '../session.ts';
import { reportSignatures, showReport } from '../signature-report.ts';
import { writeSigningFile } from '../signing-file.ts';
import { isWritten, type SigningFlags, signingOptions } from '../signing-flags.ts';
import { chooseSigner } from '../signing-key.ts';
import { findSimulated, simulatedNote } from '../simulated-kinds.ts';
import { fetchProof } from '../submission.ts';
import { type DeliveryFlags, deliverWork, deliveryOptions } from '../work-delivery.ts';

interface SendFlags extends ApplyFlags, DeliveryFlags, SigningFlags {}

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
    `${flags.unsigned === true ? 'preparing' : 'signing'} ${payload.mode} of ${payload.realm}/${payload.deployment} generation ${payload.generation}`,
  );
  output.note(`  nodes   ${nodeNames.map((name, at) => `${name}${notes[at] ?? ''}`).join(', ')}`);
  if (payload.mode === 'apply') {
    output.note(`  caps    ${payload.caps.join(', ') || 'none'}`);
    output.note(
      `  within  ${milliCpus / 1000} cpu, ${memoryBytes / 2 ** 20} MiB memory, ${storageBytes / 2 ** 30} GiB storage`,
    );
    output.note(`  input   ${JSON.stringify(payload.input)}`);
    const sealed = Object.keys(payload.secrets).length;
    if (sealed > 0)
      output.note(`  secrets sealed for ${sealed} ${sealed === 1 ? 'node' : 'nodes'}`);
  }
  if (payload.deleteData.length > 0)
    output.note(`  DELETES the data of ${payload.deleteData.join(', ')}`);
}

async function send(session: Session, work: SignedWork, flags: SendFlags): Promise<void> {
  await describeWork(session, work, flags);
  const envelope = signScript(work.payload, signersOf(session, flags));
  if (isWritten(flags)) {
    return await writeWork(session, work, envelope, flags.out ?? '-');
  }
  try {
    await deliverWork(session, { envelope }, flags);
  } catch (error) {
    if (!isHyphaError(error, 'E_SIG_THRESHOLD')) throw error;
    throw new HyphaError(error.code, error.message, {
      cause: error,
      hint: 'name more keys with --key, or let others sign: --sign-only --out FILE, then hypha cosign FILE --key KEY and hypha submit FILE',
    });
  }
}

function signersOf(session: Session, { key, unsigned }: SendFlags): Signer[] {
  if (unsigned === true) return [];
  return key.length === 0 ? [session.operator()] : key.map((name) => chooseSigner(session, name));
}

/** With the authority, so that whoever signs it on a machine without a network sees who has to. */
async function writeWork(
  session: Session,
  { payload }: SignedWork,
  envelope: Envelope,
  target: string,
): Promise<void> {
  const file = { submission: { envelope, ...(await fetchProof(session)) }, isBare: false };
  const authority = carriedAuthority(file, session.context.genesis);
  const item = { kind: 'script', payload } as const;
  checkSignatures(envelope, item, authority);
  const report = reportSignatures(file, item, authority, target);
  writeSigningFile(target, file);
  showReport(session.output, report, target);
}

function sendOptions(command: Command): Command {
  return signingOptions(deliveryOptions(command))
    .option('--node <name>', 'run on this node; repeat for more', collect, [])
    .option('--realm <realm>', 'realm of the deployment')
    .option('--generation <n>', 'number of this revision; default: one above the last')
    .option('--message <text>', 'why, kept in the revision', '')
    .option('--ttl <seconds>', 'how long the signature is good', '900');
}

function warningOf(variable: string): string {
  return `warning: the secret in env ${variable} can be read by every process of its container; files are safer`;
}

export function applyCommand(program: Command): void {
  limitOptions(sendOptions(program.command('apply <file>')))
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
