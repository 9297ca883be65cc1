import {
  Authority,
  buildAuthorityPayload,
  buildGenesisPayload,
  type Envelope,
  signAuthority,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AuthorityMirror } from './authority-mirror.ts';
import { openTestStore, type TestStore } from './testing/test-store.ts';

const { signer: root } = generateKey();
const genesis = signAuthority(
  buildGenesisPayload({
    rootKeys: [{ publicKey: root.publicKey, name: 'root' }],
    threshold: 1,
    nowSeconds: 1,
  }),
  [root],
);
const first = Authority.fromGenesis(nodeVerifier, genesis);
const revoking = (letter: string) =>
  signAuthority(
    buildAuthorityPayload(
      first,
      { type: 'revoke-node', node: `node_${letter.repeat(32)}`, reason: '' },
      1,
    ),
    [root],
  );
const update = revoking('a');

let opened: TestStore;
let grown: (readonly Envelope[])[];
beforeEach(async () => {
  opened = await openTestStore();
  grown = [];
});
afterEach(() => opened.close());

function openMirror(pinnedGenesis?: string): Promise<AuthorityMirror> {
  return AuthorityMirror.open({
    store: opened.store,
    verifier: nodeVerifier,
    pinnedGenesis,
    onGrown: (_, added) => grown.push(added),
  });
}

test('a stapled genesis is never taken on trust, only as the pinned one', async () => {
  const unpinned = await openMirror();
  await unpinned.growFromStaple([genesis]);
  expect(unpinned.find()).toBeUndefined();
  expect(() => unpinned.get()).toThrow(expect.objectContaining({ code: 'E_UNAVAILABLE' }));
  const other = await openMirror('a'.repeat(64));
  await expect(other.growFromStaple([genesis])).rejects.toMatchObject({ code: 'E_AUTHORITY' });
  const pinned = await openMirror(first.genesisHash);
  await pinned.growFromStaple([genesis]);
  expect(pinned.seq).toBe(0);
});

test('what it has learned is there after it was opened again', async () => {
  await (await openMirror()).grow([genesis, update]);
  const again = await openMirror(first.genesisHash);
  expect(again.seq).toBe(1);
  expect(again.get().isNodeRevoked(`node_${'a'.repeat(32)}`)).toBe(true);
  await expect(openMirror('a'.repeat(64))).rejects.toMatchObject({ code: 'E_AUTHORITY' });
});

test('the same updates from many sides at once are kept once', async () => {
  const mirror = await openMirror();
  await Promise.all(Array.from({ length: 5 }, () => mirror.grow([genesis, update])));
  expect(mirror.seq).toBe(1);
  expect(grown).toEqual([[genesis, update]]);
});

test('a fork is refused and what is known stays', async () => {
  const mirror = await openMirror();
  await mirror.grow([genesis, update]);
  await expect(mirror.grow([genesis, revoking('b')])).rejects.toMatchObject({
    code: 'E_AUTHORITY',
  });
  expect(mirror.get().isNodeRevoked(`node_${'b'.repeat(32)}`)).toBe(false);
  expect(mirror.seq).toBe(1);
});
