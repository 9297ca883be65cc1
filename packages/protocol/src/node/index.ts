export {
  generateKey,
  publicKeyFromPem,
  readKeyFile,
  signerFromPem,
  writeKeyFile,
} from './key-file.ts';
export { nodeVerifier } from './node-verifier.ts';
export {
  findPrivateFile,
  isAbsent,
  OpenFileError,
  readPrivateFile,
  syncFolder,
  writePrivateFile,
} from './private-file.ts';
