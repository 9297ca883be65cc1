/**
 * What proves that somebody served two histories, kept for people: one file for each finding, never
 * overwritten, at most a hundred. What was found first is worth most, so a full folder takes no more.
 */
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isAbsent, writePrivateFile } from '@hypha/protocol/node';

const FILES_MAX = 100;

export interface Evidence {
  /** First part of the file's name. */
  readonly kind: 'log-fork' | 'log-rollback' | 'authority-fork';
  /** For people. */
  readonly reason: string;
  /** What contradicts each other, each as it was signed: notes or envelopes. */
  readonly ours: unknown;
  readonly theirs: unknown;
}

export class EvidenceFolder {
  readonly #folder: string;
  readonly #nowMs: () => number;

  /** @param nowMs wall clock, epoch milliseconds: when it was found */
  constructor(folder: string, nowMs: () => number) {
    this.#folder = folder;
    this.#nowMs = nowMs;
  }

  /**
   * The path of the file, on disk when it resolves; undefined when this finding is kept already or the
   * folder is full.
   */
  async keep({ kind, reason, ours, theirs }: Evidence): Promise<string | undefined> {
    const pair = JSON.stringify([ours, theirs]);
    const name = `${kind}-${createHash('sha256').update(pair).digest('hex').slice(0, 32)}.json`;
    const names = await this.list();
    if (names.includes(name) || names.length >= FILES_MAX) return undefined;
    const path = join(this.#folder, name);
    const found = new Date(this.#nowMs()).toISOString();
    const text = JSON.stringify({ v: 1, kind, found, reason, ours, theirs }, undefined, 2);
    await writePrivateFile(path, `${text}\n`);
    return path;
  }

  /** Names of the files. */
  async list(): Promise<string[]> {
    try {
      const names = await readdir(this.#folder);
      return names.filter((name) => name.endsWith('.json'));
    } catch (error) {
      if (isAbsent(error)) return [];
      throw error;
    }
  }
}
