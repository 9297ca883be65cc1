import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openStore, type Store } from '@hypha/store';
import { COORDINATOR_MIGRATIONS, type CoordinatorDb } from '../schema.ts';

/** A store of its own, gone with its folder on `close`. */
export interface TestStore {
  readonly store: Store<CoordinatorDb>;
  readonly folder: string;
  close(): Promise<void>;
}

export async function openTestStore(): Promise<TestStore> {
  const folder = await mkdtemp(join(tmpdir(), 'hypha-coordinator-store-'));
  const store = await openStore<CoordinatorDb>({
    file: join(folder, 'coordinator.sqlite'),
    migrations: COORDINATOR_MIGRATIONS,
  });
  return {
    store,
    folder,
    close: async () => {
      await store.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
