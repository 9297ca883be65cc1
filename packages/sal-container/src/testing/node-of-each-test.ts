import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest';
import { findLack, Scratch } from './scratch.ts';
import type { ScratchNode } from './scratch-node.ts';

/**
 * Gives each test of a file a node of its own, on a pool and an image that they share. Skips them where no
 * container can run. Tests only.
 */
export function nodeOfEachTest(
  use: (node: ScratchNode, scratch: Scratch) => Promise<void> | void,
): void {
  let lacking: string | undefined;
  let scratch: Scratch | undefined;
  let node: ScratchNode | undefined;
  beforeAll(async () => {
    lacking = await findLack();
    if (lacking === undefined) scratch = await Scratch.create();
  });
  afterAll(() => scratch?.close());
  beforeEach(async (context) => {
    node = undefined;
    if (scratch === undefined) return context.skip(lacking);
    node = await scratch.createNode();
    await use(node, scratch);
  });
  afterEach(() => node?.close());
}
