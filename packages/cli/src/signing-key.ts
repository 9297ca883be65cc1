import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { base64, fromBase64, HyphaError, Name, type Signer } from '@hypha/protocol';
import { publicKeyFromPem, readKeyFile } from '@hypha/protocol/node';
import type { Session } from './session.ts';

/** A key as an operator names it. */
export interface ChosenKey {
  readonly publicKey: Uint8Array;
  /** Absent when only the public half is here. */
  readonly signer?: Signer;
  /** Of the file, where it makes a name; undefined for a key given as base64. */
  readonly name?: string;
}

/**
 * A PEM file (either half), a key of the state folder by its name, or 32 raw bytes in base64.
 * @throws HyphaError `E_NOT_FOUND` for what is none of these, `E_ARGUMENT` for a file that holds no Ed25519 key
 */
export function chooseKey(session: Session, text: string): ChosenKey {
  const file = session.keyFileOf(text);
  if (existsSync(file)) return readKey(file);
  try {
    const publicKey = fromBase64(text);
    if (publicKey.length === 32) return { publicKey };
  } catch {
    // Not base64 either: the error below names all that was tried.
  }
  throw new HyphaError(
    'E_NOT_FOUND',
    `no key ${text}: neither a file, nor a key of this state, nor base64`,
    { hint: 'make one: hypha key new NAME; hypha key list shows those there are' },
  );
}

function readKey(file: string): ChosenKey {
  const pem = readFileSync(file, 'utf8');
  const name = nameOf(file);
  const named = name === undefined ? {} : { name };
  if (!pem.includes('PRIVATE KEY')) return { publicKey: publicKeyFromPem(pem), ...named };
  // Reads it again, and refuses a private key that others may read too.
  const signer = readKeyFile(file);
  return { publicKey: signer.publicKey, signer, ...named };
}

function nameOf(file: string): string | undefined {
  const name = Name.safeParse(
    basename(file)
      .replace(/(?:\.(?:pem|pub|key))+$/, '')
      .toLowerCase(),
  );
  return name.success ? name.data : undefined;
}

/** Throws `E_ARGUMENT` when only the public half is here. */
export function chooseSigner(session: Session, text: string): Signer {
  const { signer, publicKey } = chooseKey(session, text);
  if (signer !== undefined) return signer;
  throw new HyphaError('E_ARGUMENT', `${text} is the public key ${base64(publicKey)}`, {
    hint: 'sign with the private half, or bring a signature: hypha cosign --signature --public-key',
  });
}
