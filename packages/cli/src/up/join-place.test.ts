import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { formatJoinToken } from '@hypha/protocol';
import { admitNode, createFleet, openTempDir } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import type { CliEnvironment } from '../config.ts';
import { openState } from '../state-layout.ts';
import { findJoinPlace } from './join-place.ts';

const GENESIS = 'a'.repeat(64);
const URLS = { ledger: 'http://ledger.test:1', coordinator: 'http://coordinator.test:2' };
const NO_ENV = {} as CliEnvironment;
const NO_FLAGS = { as: 'node' } as const;

function tokenOf(name: string): string {
  const { admission } = admitNode(createFleet(), { name });
  const secret = 'A'.repeat(43);
  return formatJoinToken({ secret, genesis: GENESIS, ...URLS, admission });
}

describe('where a machine joins', () => {
  test('is what the token in a file says, without the newline at its end', async () => {
    await using folder = await openTempDir();
    const tokenFile = join(folder.path, 'token');
    const token = tokenOf('edge-1');
    writeFileSync(tokenFile, `${token}\n`);
    const state = openState(join(folder.path, 'state'));
    expect(findJoinPlace(state, undefined, { ...NO_FLAGS, tokenFile }, NO_ENV)).toEqual({
      ...{ name: 'edge-1', genesis: GENESIS, ...URLS, token, isChosen: false },
    });
  });

  test('is what the token in the environment says, with addresses of the operator instead', async () => {
    await using folder = await openTempDir();
    const env = { ...NO_ENV, HYPHA_JOIN_TOKEN: tokenOf('edge-1') };
    const flags = { ...NO_FLAGS, ledger: 'http://10.0.0.1:1' };
    expect(findJoinPlace(openState(folder.path), undefined, flags, env)).toMatchObject({
      ...{ ledger: 'http://10.0.0.1:1', coordinator: URLS.coordinator, isChosen: true },
    });
  });

  test('is never the fleet of a token when the operator names another', async () => {
    await using folder = await openTempDir();
    const flags = { ...NO_FLAGS, genesis: 'b'.repeat(64) };
    expect(() => findJoinPlace(openState(folder.path), tokenOf('edge-1'), flags, NO_ENV)).toThrow(
      expect.objectContaining({ code: 'E_AUTHORITY' }),
    );
  });

  test('is what the operator says when there is no token', async () => {
    await using folder = await openTempDir();
    const state = openState(folder.path);
    const flags = { as: 'attic', ...URLS, genesis: GENESIS };
    expect(findJoinPlace(state, undefined, flags, NO_ENV)).toEqual({
      ...{ name: 'attic', ...URLS, genesis: GENESIS, token: undefined, isChosen: true },
    });
    for (const bad of [
      { ...flags, genesis: undefined },
      { ...flags, genesis: 'abc' },
      { ...flags, as: '../x' },
    ]) {
      const { genesis, ...rest } = bad;
      const partial = genesis === undefined ? rest : { ...rest, genesis };
      expect(() => findJoinPlace(state, undefined, partial, NO_ENV)).toThrow(
        expect.objectContaining({ code: 'E_ARGUMENT' }),
      );
    }
  });

  test('is where the one node of this state has joined, and a question when there are two', async () => {
    await using folder = await openTempDir();
    const state = openState(folder.path);
    const find = () => findJoinPlace(state, undefined, NO_FLAGS, NO_ENV);
    expect(find).toThrow(expect.objectContaining({ code: 'E_ARGUMENT' }));
    const enrol = (name: string) => {
      const file = join(state.node(name), 'identity', 'membership.json');
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, JSON.stringify({ v: 1, name, genesis: GENESIS, ...URLS }));
    };
    enrol('edge-1');
    expect(find()).toMatchObject({ name: 'edge-1', ...URLS, token: undefined, isChosen: false });
    enrol('edge-2');
    expect(find).toThrow(expect.objectContaining({ code: 'E_ARGUMENT' }));
  });
});
