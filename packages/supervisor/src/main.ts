/** `hypha-supervisor`: the daemon of one node. */
import { fileURLToPath } from 'node:url';
import { openSals, SalConfig } from '@hypha/sal-host';
import { systemClock } from './clock.ts';
import { runNodeProcess } from './node-process.ts';

process.title = 'hypha-supervisor';

/** Unmounting the pool. */
const CLOSE_MS_MAX = 10_000;

await runNodeProcess({
  // A program, never a library: what scripts can reach stays out of this process.
  runnerFile: fileURLToPath(import.meta.resolve('@hypha/runner/main')),
  openSals: async ({ config, folder, node, secrets, signal }) => {
    const { sals: mode, storageBytes: poolBytes, poolPath, plainRegistries } = config;
    const opened = await openSals(
      SalConfig.parse({
        ...{ mode, poolBytes, plainRegistries, folder: folder.sals, group: folder.fenceGroup },
        ...(poolPath === undefined ? {} : { poolPath }),
      }),
      { role: 'owner', node, nowMs: () => systemClock.nowMs(), secrets, signal },
    );
    return {
      sals: opened.sals,
      storageBytes: (await opened.usage()).sizeBytes,
      runnerConfig: opened.config,
      close: () => opened.close(AbortSignal.timeout(CLOSE_MS_MAX)),
    };
  },
});
