import type { Signer } from '@hypha/protocol';
import {
  findPrivateFile,
  generateKey,
  signerFromPem,
  writePrivateFile,
} from '@hypha/protocol/node';

/**
 * The key that signs tree heads and nothing else, PKCS#8 PEM, 0600. Made at the first start; a crash leaves
 * either no key or a whole one. Another key has no effect until the authority names it (`set-ledger-key`).
 * @throws OpenFileError when others than its owner may use the file
 * @throws HyphaError `E_ARGUMENT` when it holds no Ed25519 key
 */
export async function ensureLedgerKey(file: string): Promise<Signer> {
  const pem = await findPrivateFile(file);
  if (pem !== undefined) return signerFromPem(pem);
  const made = generateKey();
  await writePrivateFile(file, made.pem);
  return made.signer;
}
