import { statSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Whether a user who is neither owner nor group can read this file: a checkout below somebody's home often
 * cannot be, and then a process that has to read it cannot be given a user of its own.
 */
export function isReadableByAll(file: string): boolean {
  if ((statSync(file).mode & 0o004) === 0) return false;
  for (let folder = dirname(file); ; folder = dirname(folder)) {
    if ((statSync(folder).mode & 0o001) === 0) return false;
    if (folder === dirname(folder)) return true;
  }
}
