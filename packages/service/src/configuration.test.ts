import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { ConfigError, loadConfig } from './configuration.ts';

const Schema = z.strictObject({
  state: z.string().min(1),
  port: z.int().min(0).max(65_535).default(7401),
  joinToken: z.string().optional(),
  verbose: z.boolean().default(false),
  labels: z.array(z.string()).default([]),
});

function load(
  argv: readonly string[],
  env: Record<string, string> = {},
  file?: string,
): z.infer<typeof Schema> {
  if (file === undefined) return loadConfig(Schema, { argv, env, prefix: 'HYPHA_TEST' });
  const folder = mkdtempSync(join(tmpdir(), 'hypha-config-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'config.json');
  writeFileSync(path, file);
  return loadConfig(Schema, { argv: [...argv, '--config', path], env, prefix: 'HYPHA_TEST' });
}

function faultsOf(load: () => unknown): readonly string[] {
  try {
    load();
  } catch (error) {
    if (error instanceof ConfigError) return error.lines;
    throw error;
  }
  return [];
}

test('flags win over the environment, and the environment over the file', () => {
  const file = '{"state":"file","port":1,"verbose":true}';
  expect(load([], {}, file)).toMatchObject({ state: 'file', port: 1, verbose: true });
  const env = { HYPHA_TEST_PORT: '2', HYPHA_TEST_JOIN_TOKEN: 't', OTHER: 'x' };
  expect(load([], env, file)).toMatchObject({ state: 'file', port: 2, joinToken: 't' });
  expect(load(['--port', '3', '--state=/s'], env, file)).toMatchObject({ state: '/s', port: 3 });
});

test('reads text by what the schema wants', () => {
  const config = load(['--state', '7', '--verbose', 'true', '--labels', '["a","b"]']);
  expect(config).toEqual({ state: '7', port: 7401, verbose: true, labels: ['a', 'b'] });
  expect(Object.isFrozen(config)).toBe(true);
});

test.for([
  ['a bad flag', ['--state', 's', '--port', 'x'], {}, /^--port: x: /],
  ['a bad variable', ['--state', 's'], { HYPHA_TEST_PORT: '70000' }, /^HYPHA_TEST_PORT: 70000: /],
  ['a missing value', ['--state'], {}, /^--state: \(not set\): has no value$/],
  ['a missing key', [], {}, /^--state: \(not set\): is required$/],
  ['an unknown flag', ['--stat', 's'], {}, /^--stat: : unknown flag$/],
  ['an unknown variable', [], { HYPHA_TEST_STAT: 's' }, /^HYPHA_TEST_STAT: s: unknown variable$/],
  ['a flag twice', ['--state', 's', '--state', 't'], {}, /^--state: t: given twice$/],
  ['no file', ['--config', '/nonexistent'], {}, /^--config: \/nonexistent: ENOENT/],
] as const)('tells key, value and reason of %s', ([, argv, env, line]) => {
  const [first] = faultsOf(() => load(argv, env));
  expect(first).toMatch(line);
});

test.for([
  ['no JSON', '{', /^--config: .*: expected a key at offset 1$/],
  ['a key twice', '{"port":1,"port":2}', /duplicate key "port"/],
  ['a list', '[]', /is not a JSON object$/],
  ['an unknown key', '{"prot":1}', /^prot in .*config\.json: 1: unknown key$/],
  ['a bad value', '{"state":"s","port":"1"}', /^port in .*config\.json: 1: /],
] as const)('refuses a file with %s', ([, file, line]) => {
  const [first] = faultsOf(() => load([], {}, file));
  expect(first).toMatch(line);
});

test('tells every fault, and no secret', () => {
  const env = { HYPHA_TEST_JOIN_TOKEN: 'hunter2' };
  const strict = Schema.extend({ joinToken: z.string().min(20) });
  const lines = faultsOf(() =>
    loadConfig(strict, { argv: ['--port', '-1'], env, prefix: 'HYPHA_TEST' }),
  );
  expect(lines).toHaveLength(3);
  expect(lines.join('\n')).toContain('HYPHA_TEST_JOIN_TOKEN: (hidden): ');
  expect(lines.join('\n')).not.toContain('hunter2');
});
