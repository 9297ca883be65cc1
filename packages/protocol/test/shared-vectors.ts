import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { TestContext } from 'vitest';

/** Published test vectors are read in place: from `HYPHA_SHARED`, or a `shared` folder beside the checkout. */
const { HYPHA_SHARED } = process.env;
const SHARED = HYPHA_SHARED ?? resolve(import.meta.dirname, '../../../../shared');

/** Undefined when the vectors are not on this machine. */
export function readVectors(name: string): unknown {
  const file = resolve(SHARED, 'vectors', name);
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
}

/** Every JSON file below the folder by its path; empty when the vectors are not on this machine. */
export function readVectorFolder(name: string): ReadonlyMap<string, unknown> {
  const folder = resolve(SHARED, 'vectors', name);
  if (!existsSync(folder)) return new Map();
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return new Map(
    files
      .filter((file) => file.endsWith('.json'))
      .map((file) => [file, JSON.parse(readFileSync(join(folder, file), 'utf8'))]),
  );
}

/** Has the summary of the run say how many cases of a vector suite ran. */
export function countCases(context: TestContext, suite: string, cases: number): void {
  context.task.meta.vectors = { suite, cases };
}

export const VECTORS_MISSING = 'needs the published vectors: set HYPHA_SHARED';
