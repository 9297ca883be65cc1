/** What stands in a signing file, as `cosign` and every `--sign-only` answer it. */
import { type Authority, digestOf } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { NamedKey } from './authority-change.ts';
import type { Output } from './output.ts';
import { countSignatures, describeGroup, isGenesis, signersOf } from './signature-count.ts';
import { payloadOf, type SignedPayload } from './signed-payload.ts';
import type { SigningFile } from './signing-file.ts';

export interface SignatureReport {
  readonly value: unknown;
  readonly lines: readonly (readonly [string, string])[];
}

/** @throws HyphaError when enough have signed and it does not hold all the same */
export function reportSignatures(
  { submission: { envelope } }: SigningFile,
  item: SignedPayload,
  authority: Authority | undefined,
  file: string,
): SignatureReport {
  const count = countSignatures(envelope, item, authority);
  const names = new Map(signersOf(item, authority)?.map(({ keyid, name }) => [keyid, name]));
  const signatures = envelope.signatures.map(({ keyid }) => ({
    keyid,
    name: names.get(keyid as NamedKey['keyid']) ?? null,
  }));
  const digest = digestOf(nodeVerifier, envelope.payloadType, payloadOf(envelope));
  const groups = count?.groups ?? [];
  return {
    value: {
      kind: item.kind,
      digest,
      file,
      signatures,
      complete: count?.complete ?? null,
      groups: groups.map((group) => ({
        ...group,
        signed: group.signed.map(withoutKey),
        others: group.others.map(withoutKey),
      })),
    },
    lines: [
      ['digest', digest],
      ['signed by', signatures.map(({ keyid, name }) => name ?? keyid).join(', ') || 'nobody yet'],
      ...groups.map((group) => ['needs', describeGroup(group)] as const),
      ['next', nextStep(item, count?.complete, file)],
    ],
  };
}

/** On stdout, unless the file itself went there. */
export function showReport(output: Output, report: SignatureReport, file: string): void {
  if (file !== '-') {
    output.item(report.value, report.lines);
    return;
  }
  for (const [name, text] of report.lines) output.note(`${`${name}:`.padEnd(11)}${text}`);
}

function withoutKey({ keyid, name }: NamedKey) {
  return { keyid, name };
}

function nextStep(item: SignedPayload, complete: boolean | undefined, file: string): string {
  const at = file === '-' ? 'FILE' : file;
  if (complete === false) return `the others sign it: hypha cosign ${at} --key KEY`;
  if (isGenesis(item)) return 'start the ledger with it; pin its digest in every context';
  if (complete === true) return `hypha submit ${at}`;
  return `it carries no authority, so who has to sign cannot be told here; hypha submit ${at}`;
}
