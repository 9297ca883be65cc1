import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

test('nothing outside of node/ imports anything of Node, so that a browser can run it', () => {
  const files = readdirSync(import.meta.dirname).filter((name) => /(?<!\.test)\.ts$/.test(name));
  expect(files).toContain('index.ts');
  const bound = files.filter((name) => {
    const text = readFileSync(join(import.meta.dirname, name), 'utf8');
    return /from '(?:node:|\.\/node\/)|\b(?:Buffer|process)\./.test(text);
  });
  expect(bound).toEqual([]);
});
