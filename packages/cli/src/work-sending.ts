/** From a payload to the end of its runs: what every command that signs work does alike. */
import { type Envelope, HyphaError, isHyphaError, type Signer, signScript } from '@hypha/protocol';
import type { Command } from 'commander';
import { carriedAuthority, checkSignatures } from './cosignature.ts';
import { collect } from './option-parsers.ts';
import type { ApplyFlags, SignedWork } from './revision-draft.ts';
import type { Session } from './session.ts';
import { reportSignatures, showReport } from './signature-report.ts';
import { writeSigningFile } from './signing-file.ts';
import { isWritten, type SigningFlags, signingOptions } from './signing-flags.ts';
import { chooseSigner } from './signing-key.ts';
import { findSimulated, simulatedNote } from './simulated-kinds.ts';
import { fetchProof } from './submission.ts';
import {
  type DeliveryFlags,
  type DeliveryStyle,
  deliverWork,
  deliveryOptions,
} from './work-delivery.ts';

export interface SendFlags extends ApplyFlags, DeliveryFlags, SigningFlags {}

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
  const of = `${payload.mode} of ${payload.realm}/${payload.deployment}`;
  // A task counts for none.
  const generation = payload.mode === 'task' ? '' : ` generation ${payload.generation}`;
  output.note(`${flags.unsigned === true ? 'preparing' : 'signing'} ${of}${generation}`);
  output.note(`  nodes   ${nodeNames.map((name, at) => `${name}${notes[at] ?? ''}`).join(', ')}`);
  if (payload.mode !== 'destroy') {
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

/**
 * Signs and delivers, or writes for others to sign. Sets the exit code as `deliverWork` does.
 * @param style `quiet`: without a word on what is signed
 */
export async function sendWork(
  session: Session,
  work: SignedWork,
  flags: SendFlags,
  { quiet, ...style }: DeliveryStyle & { readonly quiet?: true } = {},
): Promise<void> {
  if (quiet !== true) await describeWork(session, work, flags);
  const envelope = signScript(work.payload, signersOf(session, flags));
  if (isWritten(flags)) {
    return await writeWork(session, work, envelope, flags.out ?? '-');
  }
  try {
    await deliverWork(session, { envelope }, flags, style);
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

/** For every command that signs work for a deployment. */
export function sendOptions(command: Command): Command {
  return taskSendOptions(command)
    .option('--node <name>', 'run on this node; repeat for more', collect, [])
    .option('--realm <realm>', 'realm of the deployment')
    .option('--generation <n>', 'number of this revision; default: one above the last');
}

/** For those that know by themselves where it goes. */
export function taskSendOptions(command: Command): Command {
  return signingOptions(deliveryOptions(command))
    .option('--message <text>', 'why, kept in the revision', '')
    .option('--ttl <seconds>', 'how long the signature is good', '900');
}
