import { describe, expect, test } from 'vitest';
import { HyphaError } from './index.ts';
import { checkScriptSyntax } from './script-syntax.ts';

function placeOf(source: string, file?: string) {
  try {
    checkScriptSyntax(source, file);
  } catch (error) {
    if (error instanceof HyphaError && error.code === 'E_SCRIPT_SYNTAX') return error.where;
    throw error;
  }
  return undefined;
}

describe('script syntax', () => {
  test.for([
    'import { volume } from "hypha";\nexport default async () => { await volume("data", { size: 1 }); };',
    'const x = await Promise.resolve(1);\nexport default () => x;',
    'class A { #x = 1; static { } has(o) { return #x in o; } }\nexport default () => [1].at(-1) ?? 2;',
    '',
  ])('accepts ES2023 modules: %j', (source) => {
    expect(placeOf(source)).toBeUndefined();
  });

  test('names line and column from 1', () => {
    expect(placeOf('const a = 1;\nconst = 2;\n')).toEqual({ line: 2, column: 7 });
    expect(placeOf(')')).toEqual({ line: 1, column: 1 });
  });

  test('names the file it was given', () => {
    expect(placeOf('\n\n  {', 'web.ts')).toEqual({ file: 'web.ts', line: 3, column: 4 });
  });

  test.for([
    ['a type annotation', 'const a: number = 1;'],
    ['sloppy code', 'with (a) {}'],
    ['require beside a redeclaration', 'let a; let a;'],
    ['an octal literal', 'export default 010;'],
    ['a return outside a function', 'return 1;'],
    ['an unterminated template', '`${'],
  ] as const)('refuses %s', ([, source]) => {
    expect(placeOf(source)).toMatchObject({ line: 1 });
  });

  test.for([
    ['import fs from "node:fs";', { line: 1, column: 16 }],
    ['import "./other.js";', { line: 1, column: 8 }],
    ['import { volume } from "hypha";\nexport * from "hypha/inner";', { line: 2, column: 15 }],
    ['const a = 1;\nexport { a };\nexport { b } from "b";', { line: 3, column: 19 }],
  ] as const)('refuses to import from elsewhere: %j', ([source, place]) => {
    expect(placeOf(source)).toEqual(place);
  });

  test('refuses nesting that would overflow any parser, without crashing', () => {
    expect(placeOf('('.repeat(200_000))).toMatchObject({ line: 1 });
    expect(placeOf('['.repeat(200_000))).toMatchObject({ line: 1 });
  });

  test('does not put the text of the cause into the message twice', () => {
    expect(() => checkScriptSyntax('const = 2;')).toThrow(
      /^cannot parse the script: Unexpected token$/,
    );
  });
});
