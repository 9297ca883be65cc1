import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CONTEXT_FILE, type Context } from '../context.ts';
import type { StateLayout } from '../state-layout.ts';

/** Whole or not at all: commands may be reading it. */
export function writeContext(state: StateLayout, context: Context): void {
  const file = join(state.root, CONTEXT_FILE);
  writeFileSync(`${file}.tmp`, JSON.stringify(context, null, 2), { mode: 0o600 });
  renameSync(`${file}.tmp`, file);
}
