import { join } from 'node:path';
import { HyphaError, parseStrictJson } from '@hypha/protocol';
import { findPrivateFile, writePrivateFile } from '@hypha/protocol/node';
import { z } from 'zod';

/** A note and the key that signed it, base64: the authority may name another one since. */
export const SignedNote = z.strictObject({ note: z.string(), ledgerKey: z.string() });
export type SignedNote = z.infer<typeof SignedNote>;

/** What a reader of the log has to remember of it. */
export const CheckpointPin = z.strictObject({
  v: z.literal(1),
  /** The newest head that was proven to extend all earlier ones. */
  pinned: SignedNote.nullable(),
  /** A head that contradicts it. Until a person decides, no newer one is believed. */
  disputed: SignedNote.extend({ reason: z.string() }).nullable(),
  /** Newest time that a verified head carried, epoch seconds. */
  signedTime: z.int().nonnegative(),
});
export type CheckpointPin = z.infer<typeof CheckpointPin>;

export const EMPTY_PIN: CheckpointPin = { v: 1, pinned: null, disputed: null, signedTime: 0 };

/** The file to remove once a contradiction was looked into: the next head is then taken as the first. */
export function pinFile(folder: string): string {
  return join(folder, 'checkpoint.json');
}

/**
 * `EMPTY_PIN` when there is none.
 * @throws HyphaError `E_CHECKPOINT` when it cannot be read: starting anew would forget what was seen
 */
export async function readPin(folder: string): Promise<CheckpointPin> {
  const path = pinFile(folder);
  const text = await findPrivateFile(path);
  if (text === undefined) return EMPTY_PIN;
  try {
    return CheckpointPin.parse(parseStrictJson(text));
  } catch (cause) {
    throw new HyphaError('E_CHECKPOINT', `cannot read what is pinned of the log in ${path}`, {
      cause,
      hint: `restore the file; or remove it, and the next head of the ledger is taken as the first`,
    });
  }
}

/** On disk when it resolves. */
export function writePin(folder: string, pin: CheckpointPin): Promise<void> {
  return writePrivateFile(pinFile(folder), `${JSON.stringify(pin)}\n`);
}
