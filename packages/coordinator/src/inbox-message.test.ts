import {
  Authority,
  buildAuthorityPayload,
  buildGenesisPayload,
  signAuthority,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { expect, test } from 'vitest';
import { authorityMessages } from './inbox-message.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';

const { signer: root } = generateKey();

function authorityOf(updates: number): Authority {
  const rootKeys = [{ publicKey: root.publicKey, name: 'root' }];
  const genesis = buildGenesisPayload({ rootKeys, threshold: 1, nowSeconds: 1 });
  let authority = Authority.fromGenesis(nodeVerifier, signAuthority(genesis, [root]));
  for (let seq = 1; seq <= updates; seq++) {
    const node = `node_${'abcdefgh'[seq % 8]}${String(seq)
      .padStart(31, 'a')
      .replaceAll(/[0189]/g, 'b')}`;
    const payload = buildAuthorityPayload(authority, { type: 'revoke-node', node, reason: '' }, 1);
    authority = authority.apply(signAuthority(payload, [root]));
  }
  return authority;
}

test('a node that knows nothing gets the whole chain, one that knows it gets nothing', () => {
  const authority = authorityOf(3);
  expect(authorityMessages(authority, -1)).toEqual([
    { type: 'authority', id: 'authority-3', authority: authority.updates },
  ]);
  expect(authorityMessages(authority, 2)).toEqual([
    { type: 'authority', id: 'authority-3', authority: [authority.updates[3]] },
  ]);
  expect(authorityMessages(authority, 3)).toEqual([]);
  expect(authorityMessages(authority, 99)).toEqual([]);
});

test('a long chain comes in order in messages of bounded size', () => {
  const [genesis] = authorityOf(0).updates;
  if (genesis === undefined) throw new Error('no genesis');
  const large = { ...genesis, payload: 'a'.repeat(LIMITS.authorityMessageCharsMax / 3) };
  const updates = Array.from({ length: 5 }, () => large);
  const messages = authorityMessages({ seq: 4, updates } as unknown as Authority, -1);
  expect(messages.map(({ id }) => id)).toEqual(['authority-1', 'authority-3', 'authority-4']);
  const sizes = messages.map((message) => JSON.stringify(message).length);
  expect(Math.max(...sizes)).toBeLessThan(LIMITS.authorityMessageCharsMax + 1000);
});
