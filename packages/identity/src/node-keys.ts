import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { join } from 'node:path';
import { HyphaError, type NodeId, nodeIdOf, type Signer } from '@hypha/protocol';
import { generateKey, nodeVerifier, signerFromPem } from '@hypha/protocol/node';
import { readPrivateFile, writePrivateFile } from './private-file.ts';

const IDENTITY_FILE = 'identity.pem';
const SEAL_FILE = 'seal.pem';

/** What makes a machine this node and no other (design §8). */
export interface NodeKeys {
  readonly nodeId: NodeId;
  /** Ed25519: signs enrolment, reports, receipts and requests. */
  readonly signer: Signer;
  /** Raw X25519 public key that secrets are sealed to. A key of its own: never one key for two uses. */
  readonly sealKey: Uint8Array;
}

/**
 * The node's keys, made at the first boot and kept: PKCS#8 PEM, 0600. The sealing key is written first, so
 * a crash in between leaves a node without identity, which the next start finishes.
 * @throws HyphaError `E_CONFLICT` when a file is there that is no such key, or when the sealing key of an
 *   existing identity is gone: what was sealed to it is lost, and only a person can decide that
 */
export async function openNodeKeys(folder: string): Promise<NodeKeys> {
  const files = { identity: join(folder, IDENTITY_FILE), seal: join(folder, SEAL_FILE) };
  let identity = await readPrivateFile(files.identity);
  let seal = await readPrivateFile(files.seal);
  if (seal === undefined) {
    if (identity !== undefined) {
      throw new HyphaError('E_CONFLICT', `node key ${files.identity} has lost ${files.seal}`, {
        hint: 'restore the file; or remove the node state and join again as a new node',
      });
    }
    const { privateKey } = generateKeyPairSync('x25519');
    seal = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
    await writePrivateFile(files.seal, seal);
  }
  if (identity === undefined) {
    identity = generateKey().pem;
    await writePrivateFile(files.identity, identity);
  }
  const sealKey = readKey(files.seal, () => sealPublicKey(seal));
  const signer = readKey(files.identity, () => signerFromPem(identity));
  return { nodeId: nodeIdOf(nodeVerifier, signer.publicKey), signer, sealKey };
}

function readKey<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new HyphaError('E_CONFLICT', `cannot read the key in ${path}`, {
      cause,
      hint: 'restore the file; or remove the node state and join again as a new node',
    });
  }
}

function sealPublicKey(pem: string): Uint8Array {
  const key = createPrivateKey(pem);
  if (key.asymmetricKeyType !== 'x25519') throw new TypeError(`${key.asymmetricKeyType} key`);
  const der = createPublicKey(key).export({ format: 'der', type: 'spki' });
  return new Uint8Array(der.subarray(der.length - 32));
}
