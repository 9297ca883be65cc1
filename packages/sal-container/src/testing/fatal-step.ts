/** Applies a step to a scratch node and is killed on the way. */
import { applyFatally } from '@hypha/sal/contract';
import { detectContainers } from '../runtime-detection.ts';
import { type NodeOptions, ScratchNode, signal } from './scratch-node.ts';

await applyFatally(async (world, effects) => {
  const { machine } = await detectContainers(signal());
  if (machine === undefined) throw new Error('not on this machine');
  // As `tell` of the node said it.
  const told = world as unknown as Omit<NodeOptions, 'machine' | 'plainRegistries' | 'discard'>;
  const discard = async () => {};
  return new ScratchNode({ ...told, machine, plainRegistries: [], discard }).open(effects);
});
