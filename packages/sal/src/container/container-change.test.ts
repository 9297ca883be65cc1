import { createHash } from 'node:crypto';
import { canonicalJson, type Json } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { ContainerSpec } from '../specs.ts';
import { adjustedFields, allowanceOf, changeOf, declaredFields } from './container-change.ts';

const MIB = 2 ** 20;

function spec(declared: { readonly [field: string]: Json } = {}): ContainerSpec {
  return ContainerSpec.parse({ image: 'oci:/layout:v1', memory: 16 * MIB, ...declared });
}

test.each<[string, ContainerSpec, string, readonly string[]]>([
  ['nothing', spec(), 'update', []],
  ['limits', spec({ memory: 32 * MIB, cpus: 2, pids: 9 }), 'update', ['cpus', 'memory', 'pids']],
  ['the restart policy', spec({ restart: 'never' }), 'update', ['restart']],
  ['limits and a variable', spec({ cpus: 2, env: { A: 'b' } }), 'replace', ['cpus', 'env.A']],
  ['a file', spec({ files: { '/a.b': 'c' } }), 'replace', ['files./a.b']],
  ['what was not there', spec({ workdir: '/srv' }), 'replace', ['workdir']],
])('a change of %s', (_what, next, action, differs) => {
  expect(changeOf(declaredFields(spec()), next)).toEqual({ action, differs });
  expect(changeOf(declaredFields(next), spec()).differs).toEqual(differs);
});

test('one that an older version made is replaced, and its groups are compared whole', () => {
  const past = spec({ env: { A: 'b' }, files: { '/a': 'b' } });
  const hash = (value: unknown) =>
    createHash('sha256')
      .update(canonicalJson(value as Json))
      .digest('hex')
      .slice(0, 16);
  const fields = Object.fromEntries(
    Object.entries(past).map(([name, value]) => [name, hash(value)]),
  );
  const legacy = { fields, adjustable: null, held: null };
  const next = spec({ env: { A: 'c' }, files: { '/a': 'b' }, cpus: 2 });
  expect(changeOf(legacy, next)).toEqual({ action: 'replace', differs: ['cpus', 'env'] });
  expect(allowanceOf(legacy)).toBeNull();
});

test('each limit stays at the larger of the two until the commit, however often it changes', () => {
  const wide = declaredFields(spec({ memory: 64 * MIB, cpus: 2, pids: 9 }));
  const narrow = adjustedFields(wide, spec({ cpus: 3, pids: 9 }));
  expect(allowanceOf(narrow)).toEqual({ memory: 64 * MIB, cpus: 3, pids: 9 });
  const again = adjustedFields(narrow, spec({ memory: 32 * MIB, cpus: 1, pids: 9 }));
  expect(allowanceOf(again)).toEqual({ memory: 64 * MIB, cpus: 3, pids: 9 });
  const grown = adjustedFields(again, spec({ memory: 128 * MIB, cpus: 4, pids: 9 }));
  expect(grown.held).toBeNull();
});

test('no value can be read from what is kept', () => {
  const kept = JSON.stringify(
    declaredFields(spec({ env: { A: 'hush-1' }, files: { '/a': 'hush-2' } })),
  );
  expect(kept).not.toContain('hush');
});
