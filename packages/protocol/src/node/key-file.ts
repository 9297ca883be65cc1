import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from 'node:crypto';
import { closeSync, constants, fsyncSync, openSync, writeSync } from 'node:fs';
import type { Signer } from '../crypto-port.ts';
import { HyphaError } from '../hypha-error.ts';
import { keyIdOf } from '../ids.ts';
import { nodeVerifier } from './node-verifier.ts';
import { OpenFileError, readPrivateFile } from './private-file.ts';

const MAKE_ONE = 'make one: hypha key new NAME';

/** Keys are PKCS#8 PEM, so that `openssl pkeyutl -sign -rawin` over the pre-authentication bytes works. */
export function generateKey(): { pem: string; signer: Signer } {
  const { privateKey } = generateKeyPairSync('ed25519');
  const pem = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
  return { pem, signer: signerFromKey(privateKey) };
}

export function signerFromPem(pem: string): Signer {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (cause) {
    throw new HyphaError('E_ARGUMENT', 'cannot read a private key: expected PKCS#8 PEM', {
      cause,
      hint: MAKE_ONE,
    });
  }
  if (key.asymmetricKeyType !== 'ed25519') throw notEd25519(key);
  return signerFromKey(key);
}

/** Raw public key of a PEM file that holds either half. */
export function publicKeyFromPem(pem: string): Uint8Array {
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch (cause) {
    throw new HyphaError('E_ARGUMENT', 'cannot read a key: expected PEM', {
      cause,
      hint: MAKE_ONE,
    });
  }
  if (key.asymmetricKeyType !== 'ed25519') throw notEd25519(key);
  return rawPublicKey(key);
}

function notEd25519(key: KeyObject): HyphaError {
  return new HyphaError('E_ARGUMENT', `expected an Ed25519 key, got ${key.asymmetricKeyType}`, {
    hint: MAKE_ONE,
  });
}

function rawPublicKey(key: KeyObject): Uint8Array {
  const der = key.export({ format: 'der', type: 'spki' });
  return new Uint8Array(der.subarray(der.length - 32));
}

function signerFromKey(key: KeyObject): Signer {
  const publicKey = rawPublicKey(createPublicKey(key));
  return {
    publicKey,
    keyid: keyIdOf(nodeVerifier, publicKey),
    sign: (message) => new Uint8Array(sign(null, message, key)),
  };
}

/** Throws `OpenFileError` when others than its owner may use the file, `E_NOT_FOUND` when there is none. */
export function readKeyFile(path: string): Signer {
  let pem: string;
  try {
    pem = readPrivateFile(path);
  } catch (cause) {
    if (cause instanceof OpenFileError) throw cause;
    throw new HyphaError('E_NOT_FOUND', `cannot read the key file ${path}`, {
      cause,
      hint: `${MAKE_ONE}; hypha key list shows those there are`,
    });
  }
  return signerFromPem(pem);
}

/** Creates the file 0600 and fsyncs it. Refuses to replace an existing key. */
export function writeKeyFile(path: string, pem: string): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    writeSync(fd, pem);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
