/**
 * Files that carry work between machines: what the API calls a submission (an envelope with what proves it),
 * or a bare envelope. Nothing in one is believed for standing there.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import {
  Envelope,
  HyphaError,
  LIMITS,
  parseAs,
  parseStrictJson,
  Submission,
} from '@hypha/protocol';

export interface SigningFile {
  readonly submission: Submission;
  /** The file holds an envelope and nothing around it, as a genesis does. */
  readonly isBare: boolean;
}

/** `-` is stdin and stdout. */
const PIPE = '-';

/**
 * @throws HyphaError `E_SIZE` over what a service would read, `E_ENVELOPE` for anything but a submission or an
 *   envelope; an envelope may have no signature yet
 */
export function readSigningFile(file: string): SigningFile {
  const bytes = new Uint8Array(readFileSync(file === PIPE ? 0 : file));
  if (bytes.length > LIMITS.bodyBytesMax) {
    throw new HyphaError(
      'E_SIZE',
      `${file} has ${bytes.length} bytes: at most ${LIMITS.bodyBytesMax}`,
    );
  }
  const refusal = { code: 'E_ENVELOPE', what: `what is in ${file}` } as const;
  let value: unknown;
  try {
    value = parseStrictJson(bytes);
  } catch (cause) {
    throw new HyphaError('E_ENVELOPE', `cannot read ${file} as strict JSON`, { cause });
  }
  const isBare = typeof value === 'object' && value !== null && 'payloadType' in value;
  return isBare
    ? { submission: { envelope: parseAs(Envelope, value, refusal) }, isBare }
    : { submission: parseAs(Submission, value, refusal), isBare };
}

/** Whole or not at all: a crash leaves the file as it was. */
export function writeSigningFile(file: string, { submission, isBare }: SigningFile): void {
  const text = `${JSON.stringify(isBare ? submission.envelope : submission)}\n`;
  if (file === PIPE) {
    process.stdout.write(text);
    return;
  }
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, text, { flag: 'wx' });
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
