export {
  findPrivateFile,
  isAbsent,
  OpenFileError,
  readPrivateFile,
  syncFolder,
  writePrivateFile,
} from './private-file.ts';
