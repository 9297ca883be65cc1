export {
  generateKey,
  publicKeyFromPem,
  readKeyFile,
  signerFromPem,
  writeKeyFile,
} from './key-file.ts';
export { nodeVerifier } from './node-verifier.ts';
