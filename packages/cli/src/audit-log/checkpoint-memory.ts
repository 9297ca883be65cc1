import { join, resolve } from 'node:path';
import { type Checkpoint, parseStrictJson, Sha256Hex, utf8 } from '@hypha/protocol';
import { findPrivateFile, writePrivateFile } from '@hypha/protocol/node';
import { z } from 'zod';
import type { CliEnvironment } from '../config.ts';
import { type ContextFlags, defaultStateDir } from '../context.ts';

const Remembered = z.strictObject({
  origin: z.string(),
  size: z.int().positive(),
  root: Sha256Hex,
  authority: z.strictObject({ seq: z.int().nonnegative(), head: Sha256Hex }),
  time: z.int().positive(),
  note: z.string(),
});

/**
 * The newest checkpoint this operator has seen of a fleet, kept so that a ledger that rewrites its log is
 * found out the next time. One file per fleet in the state folder; it was verified before it was kept.
 */
export class CheckpointMemory {
  readonly #file: string;

  constructor(flags: ContextFlags, env: CliEnvironment, genesisHash: string) {
    const state = flags.state === undefined ? defaultStateDir(env) : resolve(flags.state);
    this.#file = join(state, 'checkpoints', `${genesisHash}.json`);
  }

  /** Null before the first. Throws on a file that is not one of ours: silence would forget what was seen. */
  async read(): Promise<Checkpoint | null> {
    const text = await findPrivateFile(this.#file);
    return text === undefined ? null : Remembered.parse(parseStrictJson(utf8(text)));
  }

  /** Replaces what was kept; callers have seen that it extends that. */
  async keep(checkpoint: Checkpoint): Promise<void> {
    await writePrivateFile(this.#file, `${JSON.stringify(checkpoint)}\n`);
  }

  /** Both notes, which together prove that the ledger signed two histories. Answers the file. */
  async keepEvidence(seen: Checkpoint, served: Checkpoint): Promise<string> {
    const file = this.#file.replace(/json$/, `fork-${served.size}-${served.root.slice(0, 8)}.json`);
    await writePrivateFile(file, `${JSON.stringify({ seen: seen.note, served: served.note })}\n`);
    return file;
  }
}
