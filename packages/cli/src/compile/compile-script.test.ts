import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { checkScriptSyntax, isHyphaError } from '@hypha/protocol';
import { SandboxPool } from '@hypha/sandbox';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { compileScript } from './compile-script.ts';
import { mapPlace, readSourceMap } from './source-map.ts';

const root = mkdtempSync(join(tmpdir(), 'hypha-compile-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folder = '';
let count = 0;
beforeEach(() => {
  folder = join(root, String(count++));
});

/** Writes the files and compiles `web.ts`. */
async function compile(files: Readonly<Record<string, string>>, entry = 'web.ts') {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  return await compileScript(join(folder, entry));
}

async function problemOf(files: Readonly<Record<string, string>>, entry?: string) {
  const error: unknown = await compile(files, entry).catch((error: unknown) => error);
  if (!isHyphaError(error)) throw new Error('it compiled', { cause: error });
  return { code: error.code, message: error.message, where: error.where };
}

const MAIN = 'export default () => {};\n';

test('a script becomes one readable module with its data read and its capabilities known', async () => {
  const compiled = await compile({
    'web.ts': `
      import { container, type Container, log, volume } from 'hypha';
      import { page } from './lib/page.ts';
      export const deployment = { name: 'web', realm: 'shop', input: { image: 'image' } } as const;
      export default async function deploy(input: { image: string }): Promise<string> {
        const data = await volume('data', { size: '1GiB' });
        const web: Container = await container('web', { image: input.image, files: { '/p': page } });
        log('ready');
        return web.url(80) + data.name;
      }`,
    'lib/page.ts': `import text from './page.html';\nexport const page: string = text;\n`,
    'lib/page.html': '<h1>Grüße</h1>\n',
  });
  const { source, deployment, caps, sha256 } = compiled;
  expect(deployment).toMatchObject({
    name: 'web',
    realm: 'shop',
    input: { image: { type: 'image' } },
  });
  expect(caps).toEqual(['container', 'volume']);
  expect(sha256).toMatch(/^[0-9a-f]{64}$/);
  expect(source).toContain('async function deploy(input) {');
  expect(source).toContain('<h1>Grüße</h1>');
  expect(source).not.toMatch(/Promise<string>|: Container/);
  expect(source).not.toContain(root);
  expect(() => checkScriptSyntax(source)).not.toThrow();
});

test('the same files give the same bytes, wherever they lie', async () => {
  const files = { 'web.ts': `import a from './a.txt';\nexport default () => a;\n`, 'a.txt': 'a' };
  const first = await compile(files);
  folder = join(root, 'elsewhere', 'deeper');
  expect((await compile(files)).sha256).toBe(first.sha256);
});

test('a place in the signed source leads back to the file, line and column that was written', async () => {
  const { source, sourceMap } = await compile({
    'web.ts': `import { fail } from './lib/fail.ts';\n\ninterface Long { a: string }\n\nexport default () => fail({ a: 'x' } as Long);\n`,
    'lib/fail.ts': `// Two\n// lines\nexport function fail(value: unknown): never {\n  const unused: string = 'ü';\n  throw new Error(unused + value);\n}\n`,
  });
  await using pool = new SandboxPool();
  const guest = await pool.openGuest({ run: 'run', realm: 'default', alone: false });
  const turn = await guest.start(
    {
      source,
      input: {},
      seed: '0'.repeat(64),
      nowMs: 0,
      node: { id: 'n', name: 'n', labels: {} },
      limits: { cpuMs: 1000, memoryBytes: 32 * 1024 * 1024, outputBytes: 1024, hostCalls: 1 },
    },
    new AbortController().signal,
  );
  const place = turn.end?.ok === false ? turn.end.failure.place : null;
  expect(place).not.toBeNull();
  expect(mapPlace(sourceMap, place ?? { line: 0, column: 0 })).toEqual({
    file: 'lib/fail.ts',
    line: 5,
    column: 13,
  });
  expect(readSourceMap(source)).toBe(sourceMap);
});

test('the map in a signed source holds nothing of the signer but relative names', async () => {
  const { sourceMap } = await compile({ 'web.ts': MAIN });
  expect(JSON.parse(sourceMap)).toEqual({
    version: 3,
    sources: ['web.ts'],
    mappings: expect.any(String),
  });
});

test.for([
  ['no map', 'export default 1;\n'],
  ['a map that is not JSON', 'x\n//# sourceMappingURL=data:application/json;base64,e30=\n'],
  [
    'a map with foreign members',
    `x\n//# sourceMappingURL=data:application/json;base64,${btoa('{"version":3,"file":"/etc/passwd"}')}`,
  ],
  [
    'a map that would write to the terminal',
    `x\n//# sourceMappingURL=data:application/json;base64,${btoa('{"version":3,"sources":["\\u001b[2J"],"mappings":""}')}`,
  ],
] as const)('a source with %s has none that is read', ([, source]) => {
  expect(readSourceMap(source)).toBeUndefined();
});

test.for([
  [
    'does not parse',
    { 'web.ts': `const a = 1;\nconst gruß = 'ü' = = 2;\n` },
    { file: 'web.ts', line: 2, column: 20 },
    /Unexpected/,
  ],
  [
    'does not parse in a file it imports',
    { 'web.ts': `import './b.ts';\n${MAIN}`, 'b.ts': '\n\n  }' },
    { file: 'b.ts', line: 3, column: 3 },
    /Unexpected/,
  ],
  [
    'imports a package',
    { 'web.ts': `import lodash from 'lodash';\nexport default () => lodash;` },
    { file: 'web.ts', line: 1, column: 20 },
    /a package/,
  ],
  [
    'imports from Node',
    { 'web.ts': `import fs from 'node:fs';\nexport default () => fs;` },
    { file: 'web.ts', line: 1, column: 16 },
    /not relative/,
  ],
  [
    'imports by absolute path',
    { 'web.ts': `import a from '/etc/hostname';\nexport default () => a;` },
    { file: 'web.ts', line: 1, column: 15 },
    /not relative/,
  ],
  [
    'imports from the web',
    { 'web.ts': `import a from 'https://example.com/a.js';\nexport default () => a;` },
    { file: 'web.ts', line: 1 },
    /not relative/,
  ],
  [
    'imports a file that is not there',
    { 'web.ts': `import a from './nosuch.ts';\nexport default () => a;` },
    { file: 'web.ts', line: 1, column: 15 },
    /nosuch/,
  ],
  [
    'imports a file of unknown kind',
    { 'web.ts': `import a from './a.png';\nexport default () => a;`, 'a.png': 'x' },
    { file: 'web.ts', line: 1 },
    /loader/,
  ],
  [
    'imports while it runs',
    { 'web.ts': `export default () => import('./a.ts');`, 'a.ts': '' },
    { file: 'web.ts', line: 1, column: 29 },
    /import statements only/,
  ],
  [
    'imports a computed name',
    { 'web.ts': `\nexport default (a: string) => import(a);` },
    { file: 'web.ts', line: 2, column: 31 },
    /while it runs/,
  ],
  [
    'requires',
    { 'web.ts': `const a = require('./a.ts');\n${MAIN}`, 'a.ts': '' },
    { file: 'web.ts', line: 1 },
    /import statements only/,
  ],
  [
    'imports what hypha does not have',
    {
      'web.ts': `import {\n  volume,\n  network,\n} from 'hypha';\nexport default () => [volume, network];`,
    },
    { file: 'web.ts', line: 3, column: 3 },
    /no network; it has volume/,
  ],
  [
    'imports hypha as a whole',
    { 'web.ts': `import * as hypha from 'hypha';\nexport default () => hypha;` },
    { file: 'web.ts', line: 1 },
    /by name/,
  ],
  [
    'has no default function',
    { 'web.ts': `export const deployment = {};` },
    { file: 'web.ts', line: 1 },
    /default function/,
  ],
] as const)('a script that %s is refused at its place', async ([, files, where, message]) => {
  const problem = await problemOf(files);
  expect(problem.code).toBe('E_SCRIPT_SYNTAX');
  expect(problem.message).toMatch(message);
  expect(problem.where).toMatchObject(where);
});

test('an error while the script loads is shown in the operator’s own file', async () => {
  const files = {
    'web.ts': `import { names } from './names.ts';\nexport const deployment = { name: names.first };\n${MAIN}`,
    'names.ts': `type Names = { first: string };\nexport const names = (undefined as unknown as { of: Names }).of;\n`,
  };
  expect(await problemOf(files)).toMatchObject({
    code: 'E_SCRIPT',
    where: { file: 'names.ts', line: 2 },
  });
});

test.for([
  ['a file that is not there', {}, 'nosuch.ts', 'E_NOT_FOUND'],
  ['a file that is no script', { 'web.py': '' }, 'web.py', 'E_ARGUMENT'],
  [
    'a script over 256 KiB',
    { 'web.ts': `import a from './a.txt';\nexport default () => a;`, 'a.txt': 'x'.repeat(262_144) },
    'web.ts',
    'E_SIZE',
  ],
  ['a script that never finishes loading', { 'web.ts': `for (;;);\n${MAIN}` }, 'web.ts', 'E_CPU'],
] as const)('%s is refused', async ([, files, entry, code]) => {
  expect(await problemOf(files, entry)).toMatchObject({ code });
});

test.for([
  ['a name that is none', `{ name: 'My Web' }`, 'deployment.name'],
  ['an unknown member', `{ nmae: 'web' }`, 'deployment'],
  ['an unknown input type', `{ input: { a: 'float' } }`, 'deployment.input.a'],
  [
    'a default that does not fit',
    `{ input: { a: { type: 'int', default: 9, max: 8 } } }`,
    'deployment.input.a.default',
  ],
  ['no data at all', `() => 1`, undefined],
] as const)('a deployment with %s names what is wrong', async ([, deployment, path]) => {
  const files = { 'web.ts': `export const deployment = ${deployment};\n${MAIN}` };
  if (path === undefined)
    expect((await compile(files)).deployment).toEqual({ input: {}, secrets: [] });
  else expect(await problemOf(files)).toMatchObject({ code: 'E_ARGUMENT', where: { path } });
});
