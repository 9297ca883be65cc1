export {
  generateKey,
  publicKeyFromPem,
  readKeyFile,
  signerFromPem,
  writeKeyFile,
} from './key-file.ts';
export { nodeVerifier } from './node-verifier.ts';
export { isAbsent, readPrivateFile, syncFolder, writePrivateFile } from './private-file.ts';
export { OpenFileError, readPrivateFile } from './private-file.ts';
