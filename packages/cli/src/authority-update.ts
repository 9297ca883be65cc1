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
import { fetchAuthority } from './authority-chain.ts';
import { describeChange, type NamedKey } from './authority-change.ts';
import { addSignature, cosignatureBy } from './cosignature.ts';
import type { Session } from './session.ts';
import { countSignatures, describeGroup, signersOf } from './signature-count.ts';
import { reportSignatures, showReport } from './signature-report.ts';
import { type SigningFile, writeSigningFile } from './signing-file.ts';
import { isWritten, type SigningFlags } from './signing-flags.ts';
import { chooseSigner } from './signing-key.ts';

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
  flags: SigningFlags,
  signers: () => Signer[],
): Promise<SentUpdate | undefined> {
  const written = isWritten(flags);
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
  if (written) {
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
  flags: SigningFlags,
  signers: () => Signer[],
  fitting: readonly NamedKey[],
): Signer[] {
  if (flags.unsigned === true) return [];
  if (flags.key.length > 0) return flags.key.map((key) => chooseSigner(session, key));
  return signers().filter((signer) => fitting.some(({ keyid }) => keyid === signer.keyid));
}

/** Fetches the authority and changes it: what most commands do. */
export async function changeAuthority(
  session: Session,
  change: (authority: Authority) => AuthorityChange,
  flags: SigningFlags,
  signers: (change: AuthorityChange, authority: Authority) => Signer[],
): Promise<void> {
  const authority = await fetchAuthority(session);
  const made = change(authority);
  const sent = await updateAuthority(session, authority, made, flags, () =>
    signers(made, authority),
  );
  if (sent !== undefined) showSent(session, made, sent);
}
