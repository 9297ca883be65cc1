import { hex, leafHash, merkleRoot, utf8 } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { expect, test } from 'vitest';
import { MerkleFrontier } from './merkle-frontier.ts';

test('has the root of the whole tree after every leaf', () => {
  const frontier = new MerkleFrontier(nodeVerifier);
  const leaves: Uint8Array[] = [];
  for (let size = 0; size <= 130; size++) {
    expect({ size: frontier.size, root: hex(frontier.root()) }).toEqual({
      size,
      root: hex(merkleRoot(nodeVerifier, leaves)),
    });
    const leaf = leafHash(nodeVerifier, utf8(String(size)));
    leaves.push(leaf);
    frontier.append(leaf);
  }
});
