import { join } from 'node:path';
import { HyphaError, type NodeId, nodeIdOf, type Signer } from '@hypha/protocol';
import {
  findPrivateFile,
  generateKey,
  nodeVerifier,
  OpenFileError,
  signerFromPem,
  writePrivateFile,
} from '@hypha/protocol/node';
import { findMembership } from './membership.ts';
import { adoptNextKey } from './rekey.ts';
import { SealKeys } from './seal-keys.ts';
import { SecretVersions } from './secret-versions.ts';

const IDENTITY_FILE = 'identity.pem';
const SEAL_FILE = 'seal.pem';
const VERSIONS_FILE = 'versions.key';

/** What makes a machine this node and no other (design §8). */
export interface NodeKeys {
  readonly nodeId: NodeId;
  /** Ed25519: signs enrolment, reports, receipts and requests. */
  readonly signer: Signer;
  /** X25519: what secrets are sealed to. A key of its own: never one key for two uses. */
  readonly sealKeys: SealKeys;
  readonly versions: SecretVersions;
  /** The id of the first key of this machine: names what outlives a key, as the addresses of its containers. */
  readonly origin: NodeId;
}

/**
 * The node's keys, made at the first boot and kept: PKCS#8 PEM, 0600. The sealing key is written first, so
 * a crash in between leaves a node without identity, which the next start finishes.
 * @param nowMs wall clock, epoch milliseconds: how old the sealing key is
 * @throws HyphaError `OpenFileError` when others than its owner may use a file
 * @throws HyphaError `E_CONFLICT` when a file is there that is no such key, or when the sealing key of an
 *   existing identity is gone: what was sealed to it is lost, and only a person can decide that
 */
export async function openNodeKeys(folder: string, nowMs: () => number): Promise<NodeKeys> {
  const files = {
    identity: join(folder, IDENTITY_FILE),
    seal: join(folder, SEAL_FILE),
    versions: join(folder, VERSIONS_FILE),
  };
  await adoptNextKey(folder, files.identity);
  let identity = await findPrivateFile(files.identity);
  let sealKeys = await readKey(files.seal, () => SealKeys.find(files.seal, nowMs));
  if (sealKeys === undefined) {
    if (identity !== undefined) {
      throw new HyphaError('E_CONFLICT', `node key ${files.identity} has lost ${files.seal}`, {
        hint: 'restore the file; or remove the node state and join again as a new node',
      });
    }
    sealKeys = await SealKeys.create(files.seal, nowMs);
  }
  if (identity === undefined) {
    identity = generateKey().pem;
    await writePrivateFile(files.identity, identity);
  }
  const pem = identity;
  const signer = await readKey(files.identity, () => signerFromPem(pem));
  const versions = await readKey(files.versions, () => SecretVersions.open(files.versions));
  const nodeId = nodeIdOf(nodeVerifier, signer.publicKey);
  const origin = (await findMembership(folder))?.origin ?? nodeId;
  return { nodeId, signer, sealKeys, versions, origin };
}

async function readKey<T>(path: string, read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (cause instanceof OpenFileError) throw cause;
    throw new HyphaError('E_CONFLICT', `cannot read the key in ${path}`, {
      cause,
      hint: 'restore the file; or remove the node state and join again as a new node',
    });
  }
}
