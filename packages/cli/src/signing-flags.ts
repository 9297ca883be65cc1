import { HyphaError } from '@hypha/protocol';
import type { Command } from 'commander';
import { collect } from './option-parsers.ts';

/** Who signs, and whether it is sent or written for others; the same for scripts and for the authority. */
export interface SigningFlags {
  readonly key: readonly string[];
  readonly signOnly?: true;
  readonly unsigned?: true;
  readonly out?: string;
}

export function signingOptions(command: Command): Command {
  return command
    .option(
      '--key <file-or-name>',
      'sign with this key; repeat for more; default: that of this context',
      collect,
      [],
    )
    .option('--sign-only', 'write it for others to sign (hypha cosign) or send, send nothing')
    .option('--unsigned', 'the same without a signature of ours: for keys that are kept elsewhere')
    .option('--out <file>', 'with --sign-only or --unsigned: where to write it; default: stdout');
}

/** Whether it is to be written instead of sent. Throws `E_ARGUMENT` for flags that contradict each other. */
export function isWritten({ key, signOnly, unsigned, out }: SigningFlags): boolean {
  const written = signOnly === true || unsigned === true;
  if (out !== undefined && !written) {
    throw new HyphaError('E_ARGUMENT', '--out is for what is not sent', {
      hint: 'add --sign-only or --unsigned',
    });
  }
  if (unsigned === true && (key.length > 0 || signOnly === true)) {
    throw new HyphaError('E_ARGUMENT', '--unsigned takes no signature', {
      hint: 'leave --key and --sign-only out, or --unsigned',
    });
  }
  return written;
}
