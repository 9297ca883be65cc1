import { dirname, join, resolve } from 'node:path';
import { EvidenceFolder } from '@hypha/client';
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

  /** Both notes, which together prove what the ledger did. Answers the file; undefined when it was kept before. */
  keepEvidence(
    reason: string,
    heads: { readonly seen: Checkpoint; readonly served: Checkpoint; readonly nowMs: number },
  ): Promise<string | undefined> {
    const { seen, served, nowMs } = heads;
    const folder = new EvidenceFolder(join(dirname(this.#file), 'evidence'), () => nowMs);
    // An old head is no contradiction by itself: anybody may have kept it and serve it again.
    const kind = served.size < seen.size && served.time <= seen.time ? 'log-rollback' : 'log-fork';
    return folder.keep({ kind, reason, ours: seen.note, theirs: served.note });
  }
}
