/** Makes an update of the authority: signed here and sent, or written for others to sign. */
import {
  type Authority,
  type AuthorityChange,
  buildAuthorityPayload,
  type Envelope,
  HyphaError,
  type Signer,
  signAuthority,
} from '@hypha/protocol';
import type { Command } from 'commander';
import { fetchAuthority } from './authority-chain.ts';
import { describeChange, type NamedKey } from './authority-change.ts';
import { addSignature, cosignatureBy } from './cosignature.ts';
import { collect } from './option-parsers.ts';
import type { Session } from './session.ts';
import { countSignatures, describeGroup, signersOf } from './signature-count.ts';
import { reportSignatures, showReport } from './signature-report.ts';
import { type SigningFile, writeSigningFile } from './signing-file.ts';
import { chooseSigner } from './signing-key.ts';

/** How a change is signed; the same for all of them. */
export interface UpdateFlags {
  readonly key: readonly string[];
  readonly signOnly?: true;
  readonly unsigned?: true;
  readonly out?: string;
}

export function updateOptions(command: Command): Command {
  return command
    .option(
      '--key <file-or-name>',
      'sign with this key; repeat for more; default: that of this context',
      collect,
      [],
    )
    .option('--sign-only', 'write it for others to sign (hypha cosign), send nothing')
    .option('--unsigned', 'the same without any signature of ours')
    .option('--out <file>', 'with --sign-only or --unsigned: where to write it');
}

/** An update that the ledger holds. */
export interface SentUpdate {
  readonly seq: number;
  readonly hash: string;
  /** The state after it. */
  readonly authority: Authority;
}

/**
 * @param signers who signs when no key was named; not asked when nobody is to sign
 * @returns undefined when it was written instead of sent
 * @throws HyphaError `E_SIG_THRESHOLD` naming who is missing; what the ledger would answer otherwise
 */
export async function updateAuthority(
  session: Session,
  authority: Authority,
  change: AuthorityChange,
  flags: UpdateFlags,
  signers: () => Signer[],
): Promise<SentUpdate | undefined> {
  const payload = buildAuthorityPayload(authority, change, session.nowSeconds());
  const item = { kind: 'authority', payload } as const;
  const chosen = chosenSigners(session, flags, signers, signersOf(item, authority) ?? []);
  const envelope = chosen.reduce(
    (before, signer) => addSignature(before, cosignatureBy(signer, before), item, authority),
    signAuthority(payload, []),
  );
  const file: SigningFile = {
    submission: { envelope, authority: [...authority.updates] },
    isBare: false,
  };
  if (flags.signOnly === true || flags.unsigned === true) {
    const target = flags.out ?? '-';
    const report = reportSignatures(file, item, authority, target);
    writeSigningFile(target, file);
    showReport(session.output, report, target);
    return undefined;
  }
  const count = countSignatures(envelope, item, authority);
  if (count?.complete === false) {
    throw new HyphaError('E_SIG_THRESHOLD', `cannot send: ${describeChange(change)}`, {
      details: count.groups.map(describeGroup),
      hint: 'name more keys with --key, or write it for the others: --sign-only --out FILE',
    });
  }
  return await sendUpdate(session, envelope, authority.apply(envelope));
}

/** @param after the state it makes */
export async function sendUpdate(
  session: Session,
  envelope: Envelope,
  after: Authority,
): Promise<SentUpdate> {
  const head = await session.ledger().appendAuthority(envelope);
  return { ...head, authority: after };
}

export function showSent(session: Session, change: AuthorityChange, sent: SentUpdate): void {
  const { seq, hash } = sent;
  session.output.item({ seq, hash, change }, [
    ['change', describeChange(change)],
    ['authority', `seq ${seq}, head ${hash}`],
  ]);
}

/** Keys that were named have to fit; of those that only happen to be here, the ones that do are used. */
function chosenSigners(
  session: Session,
  flags: UpdateFlags,
  signers: () => Signer[],
  fitting: readonly NamedKey[],
): Signer[] {
  if (flags.unsigned === true) return [];
  if (flags.key.length > 0) return flags.key.map((key) => chooseSigner(session, key));
  return signers().filter((signer) => fitting.some(({ keyid }) => keyid === signer.keyid));
}

/** Throws `E_ARGUMENT` when `--out` stands alone: nothing would be written there. */
export function checkUpdateFlags({ out, signOnly, unsigned }: UpdateFlags): void {
  if (out === undefined || signOnly === true || unsigned === true) return;
  throw new HyphaError('E_ARGUMENT', '--out is for what is not sent', {
    hint: 'add --sign-only or --unsigned',
  });
}

/** Fetches the authority and changes it: what most commands do. */
export async function changeAuthority(
  session: Session,
  change: (authority: Authority) => AuthorityChange,
  flags: UpdateFlags,
  signers: (change: AuthorityChange, authority: Authority) => Signer[],
): Promise<void> {
  checkUpdateFlags(flags);
  const authority = await fetchAuthority(session);
  const made = change(authority);
  const sent = await updateAuthority(session, authority, made, flags, () =>
    signers(made, authority),
  );
  if (sent !== undefined) showSent(session, made, sent);
}
