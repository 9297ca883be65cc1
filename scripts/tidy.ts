/** House rules that a machine can check. Run by the tests; each rule says what to do instead. */
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { sourceFiles } from './check-rooms.ts';

const FILE_LINES_MAX = 450;
/** One table each, where a longer file reads better than two. Path → why. */
const LONG_FILES: Readonly<Record<string, string>> = {};
const BANNED_NAMES = /^(?:utils?|helpers?|common|types|misc)\.ts$/;
/** In comments only. */
const LEFTOVERS = /(?:\/\/|\*).*\b(?:TODO|FIXME|XXX|HACK)\b/;

export function findUntidy(root: string): string[] {
  const untidy: string[] = [];
  for (const path of sourceFiles(root)) {
    const lines = readFileSync(join(root, path), 'utf8').split('\n');
    if (BANNED_NAMES.test(basename(path)))
      untidy.push(`${path}: name says nothing; name the concept`);
    if (lines.length > FILE_LINES_MAX && LONG_FILES[path] === undefined) {
      untidy.push(
        `${path}: ${lines.length} lines; split it by concept (at most ${FILE_LINES_MAX})`,
      );
    }
    for (const [index, line] of lines.entries()) {
      if (LEFTOVERS.test(line))
        untidy.push(`${path}:${index + 1}: a leftover marker; do it or file it`);
    }
  }
  return untidy;
}
