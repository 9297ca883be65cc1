/** Applies a step to the volumes of a pool and is killed on the way. */
import { applyFatally } from '@hypha/sal/contract';
import { openVolumes } from './volume-world.ts';

await applyFatally((root, effects) => openVolumes(String(root), effects));
