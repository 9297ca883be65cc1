import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from './clock.ts';
import { RunnerPool } from './runner-pool.ts';
import { type RunnerRecord, RunnerRecords } from './runner-record.ts';
import { silentLog } from './testing/journal-world.ts';
import { isAlive, until } from './testing/node-fixture.ts';

/** A disk that can be full. */
class FullableRecords extends RunnerRecords {
  isFull = false;
  override async save(record: RunnerRecord): Promise<void> {
    if (this.isFull) throw new Error('no space left on device');
    await super.save(record);
  }
}

let folder: string;
let records: FullableRecords;
let pool: RunnerPool;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hypha-pool-'));
  records = new FullableRecords(folder);
  pool = new RunnerPool({
    records,
    command: {
      ...{ command: '/bin/sleep', argv: ['600'], env: {} },
      ...{ idVariable: 'RUNNER', tokenVariable: 'TOKEN' },
    },
    ...{ bootId: 'boot', cgroup2: undefined, group: 'unused', log: silentLog },
    clock: systemClock,
    isHolding: () => false,
    onDead: async () => undefined,
  });
});
afterEach(async () => {
  await pool.stop();
  await rm(folder, { recursive: true });
});

async function pidOf(): Promise<number | undefined> {
  const [record] = await records.list();
  return record?.pid ?? undefined;
}

async function die(pid: number | undefined): Promise<void> {
  if (pid === undefined) throw new Error('no runner');
  process.kill(pid, 'SIGKILL');
  await until('it is dead', () => !isAlive(pid));
}

test('a runner that died is replaced', async () => {
  await pool.recover();
  await pool.start(1);
  const first = await pidOf();
  await die(first);
  await until('another lives', async () => isAlive(await pidOf()) && (await pidOf()) !== first);
});

test('a runner that could not be started is started by a later sweep', async () => {
  await pool.recover();
  await pool.start(1);
  const first = await pidOf();
  records.isFull = true;
  await die(first);
  await until('it is given up', () => pool.ids.size === 0);
  await pool.sweep();
  expect(pool.ids.size).toBe(0);
  records.isFull = false;
  await until('a sweep starts another', async () => {
    await pool.sweep();
    return isAlive(await pidOf());
  });
  expect(pool.ids.size).toBe(1);
});
