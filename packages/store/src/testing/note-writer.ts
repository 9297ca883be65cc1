/**
 * A process that writes pairs of notes for ever, several at a time, and tells on stdout each id whose write
 * has resolved.
 */
import { writeSync } from 'node:fs';
import { insertNote, openNotes } from './note-store.ts';

const [folder = ''] = process.argv.slice(2);
const store = await openNotes(folder);
let id = 0;

async function writeForEver(): Promise<never> {
  for (;;) {
    const pair = id;
    id += 2;
    await store.write([insertNote(store, pair), insertNote(store, pair + 1)]);
    writeSync(1, `${pair}\n`);
  }
}

await Promise.all(Array.from({ length: 8 }, writeForEver));
