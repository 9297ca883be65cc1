import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Signer } from '@hypha/protocol';
import { generateKey, readKeyFile, writeKeyFile } from '@hypha/protocol/node';

/**
 * The key this coordinator signs its requests to the ledger with; made when absent. It has a say only after
 * the authority grants it the role `coordinator`. A crash while it is made leaves no half key behind.
 */
export function openCoordinatorKey(file: string): Signer {
  if (!existsSync(file)) {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const temporary = `${file}.${process.pid}.tmp`;
    writeKeyFile(temporary, generateKey().pem);
    renameSync(temporary, file);
  }
  return readKeyFile(file);
}
