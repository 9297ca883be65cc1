import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';

/** Published test vectors are read in place: from `HYPHA_SHARED`, or a `shared` folder beside the checkout. */
const { HYPHA_SHARED } = process.env;
const SHARED = HYPHA_SHARED ?? resolve(import.meta.dirname, '../../../../shared');

/** Undefined when the vectors are not on this machine. */
export function readVectors(name: string): unknown {
  const file = resolve(SHARED, 'vectors', name);
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
}

export const VECTORS_MISSING = 'needs the published vectors: set HYPHA_SHARED';
