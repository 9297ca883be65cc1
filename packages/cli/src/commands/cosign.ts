import { type Authority, type Envelope, HyphaError } from '@hypha/protocol';
import type { Command } from 'commander';
import {
  addSignature,
  bytesToSign,
  type Cosignature,
  carriedAuthority,
  checkSignatures,
  cosignatureBy,
  pinnedGenesis,
  readSignature,
} from '../cosignature.ts';
import { collect } from '../option-parsers.ts';
import { summarizePayload, visible } from '../payload-summary.ts';
import { type Session, sessionOf } from '../session.ts';
import { reportSignatures, showReport } from '../signature-report.ts';
import { readSignedPayload, type SignedPayload } from '../signed-payload.ts';
import { readSigningFile, writeSigningFile } from '../signing-file.ts';
import { chooseKey, chooseSigner } from '../signing-key.ts';

interface CosignOptions {
  key: string[];
  signature?: string;
  publicKey?: string;
  out?: string;
  genesis?: string;
  show?: true;
  pae?: true;
}

export function cosignCommand(program: Command): void {
  program
    .command('cosign <file>')
    .description(
      'show what an envelope holds and who still has to sign it; with a key, sign it too (offline)',
    )
    .option('--key <file-or-name>', 'sign with this key; repeat for more', collect, [])
    .option(
      '--signature <base64>',
      'add a signature that another tool made over the bytes of --pae',
    )
    .option('--public-key <key>', 'with --signature: whose; a PEM file or base64')
    .option('--out <file>', 'where to write it; default: back into FILE (- for stdout)')
    .option('--pae', 'write the exact bytes to sign to stdout, and nothing else')
    .option('--show', 'show all of it, the source too; sign nothing')
    .option('--genesis <hash>', 'fleet this has to be of; default: the pin of this context')
    .action(async (file: string, options: CosignOptions, command: Command) => {
      await cosign(sessionOf(command), file, options);
    });
}

async function cosign(session: Session, file: string, options: CosignOptions): Promise<void> {
  const { output } = session;
  const signingFile = readSigningFile(file);
  const { envelope } = signingFile.submission;
  const item = readSignedPayload(envelope);
  const pinned = pinnedGenesis(session, options.genesis);
  const authority = carriedAuthority(signingFile, pinned);
  checkSignatures(envelope, item, authority);
  if (options.show === true) {
    output.item(item.payload, showFields(item));
    return;
  }
  await describeOnStderr(session, item, authority);
  if (options.pae === true) {
    process.stdout.write(bytesToSign(envelope));
    return;
  }
  if (authority !== undefined && pinned === undefined) {
    output.note(`  fleet       genesis ${authority.genesisHash}: nothing here pins it, compare it`);
  }
  const added = chosenSignatures(session, envelope, options);
  const signed = added.reduce(
    (before, signature) => addSignature(before, signature, item, authority),
    envelope,
  );
  const result = { ...signingFile, submission: { ...signingFile.submission, envelope: signed } };
  const target = options.out ?? file;
  const report = reportSignatures(result, item, authority, target);
  if (added.length > 0 || options.out !== undefined) writeSigningFile(target, result);
  showReport(output, report, target);
}

function chosenSignatures(
  session: Session,
  envelope: Envelope,
  { key, signature, publicKey }: CosignOptions,
): Cosignature[] {
  if ((signature === undefined) !== (publicKey === undefined)) {
    throw new HyphaError('E_ARGUMENT', '--signature and --public-key go together', {
      hint: 'say whose signature it is: --public-key FILE',
    });
  }
  const made = key.map((name) => cosignatureBy(chooseSigner(session, name), envelope));
  if (signature === undefined || publicKey === undefined) return made;
  const brought = {
    publicKey: chooseKey(session, publicKey).publicKey,
    signature: readSignature(signature),
  };
  return [...made, brought];
}

async function describeOnStderr(
  session: Session,
  item: SignedPayload,
  authority: Authority | undefined,
): Promise<void> {
  const secretNames = await secretNamesOf(item);
  for (const [name, text] of summarizePayload(item, { secretNames, authority })) {
    session.output.note(`  ${name.padEnd(12)}${text}`);
  }
}

async function secretNamesOf(item: SignedPayload): Promise<string[]> {
  if (item.kind !== 'script' || item.payload.script === undefined) return [];
  // Only here: the parser would slow every other command down.
  const { readSecretNames } = await import('../compile/script-secrets.ts');
  return readSecretNames(item.payload.script.source);
}

function showFields(item: SignedPayload): (readonly [string, string])[] {
  if (item.kind !== 'script') return [['payload', visible(JSON.stringify(item.payload, null, 2))]];
  const { script, ...rest } = item.payload;
  return [
    ['payload', visible(JSON.stringify(rest, null, 2))],
    ['source', script === undefined ? '-' : `\n${visible(script.source)}`],
  ];
}
