/** `hypha-supervisor` on SALs that count. Started by tests only. */
import { fileURLToPath } from 'node:url';
import { runNodeProcess } from '../node-process.ts';
import { CountedSals } from './counted-sals.ts';

process.title = 'hypha-counted-supervisor';

await runNodeProcess({
  runnerFile: fileURLToPath(new URL('./counted-runner.ts', import.meta.url)),
  openSals: async ({ folder }) => ({
    sals: new CountedSals(folder.sals).sals(),
    storageBytes: 1_000_000,
    runnerConfig: { folder: folder.sals },
    close: async () => undefined,
  }),
});
