import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

/**
 * What a supervisor has to know of the runners of the one before it. Written before the process is spawned,
 * so that nothing is ever started that nobody can find: its fence is known by name.
 */
export const RunnerRecord = z.strictObject({
  id: z.string(),
  /** The runner proves by it that a supervisor of this node started it. */
  token: z.string(),
  bootId: z.string(),
  pid: z.int().nullable(),
  /** Clock ticks since boot at which the pid began: tells a pid that was used again. */
  pidStart: z.string().nullable(),
});
export type RunnerRecord = z.infer<typeof RunnerRecord>;

/** A folder with one file for each runner. What cannot be read is of a write that a power cut left behind. */
export class RunnerRecords {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async list(): Promise<RunnerRecord[]> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const names = (await readdir(this.#folder)).filter((name) => name.endsWith('.json'));
    const records = await Promise.all(
      names.map(async (name) => {
        const path = join(this.#folder, name);
        const record = parseRecord(await readFile(path, 'utf8'));
        if (record === undefined) await rm(path, { force: true });
        return record;
      }),
    );
    return records.filter((record) => record !== undefined);
  }

  async save(record: RunnerRecord): Promise<void> {
    const file = this.#fileOf(record.id);
    await writeFile(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
    await rename(`${file}.new`, file);
  }

  async drop(id: string): Promise<void> {
    await rm(this.#fileOf(id), { force: true });
  }

  #fileOf(id: string): string {
    return join(this.#folder, `${id}.json`);
  }
}

function parseRecord(text: string): RunnerRecord | undefined {
  try {
    return RunnerRecord.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** Null when there is no such process. Field 22 of `/proc/<pid>/stat` (proc(5)). */
export async function readPidStart(pid: number): Promise<string | null> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  // The command in parentheses may hold anything: fields are counted from behind it.
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
}
