import { type AdmissionPayload, payloadBytes, signEnvelope } from '@hypha/protocol';
import { fetchAuthority } from './authority-chain.ts';
import type { Session } from './session.ts';
import { reportSignatures, showReport } from './signature-report.ts';
import { writeSigningFile } from './signing-file.ts';

/** For an admin whose key is kept elsewhere: `hypha cosign`, then `hypha submit`. */
export async function writeUnsignedAdmission(
  session: Session,
  payload: AdmissionPayload,
  target: string,
): Promise<void> {
  const authority = await fetchAuthority(session);
  const envelope = signEnvelope('admission', payloadBytes('admission', payload), []);
  const file = { submission: { envelope, authority: [...authority.updates] }, isBare: false };
  const report = reportSignatures(file, { kind: 'admission', payload }, authority, target);
  writeSigningFile(target, file);
  showReport(session.output, report, target);
}
