/**
 * A process that writes pairs of notes for ever, several at a time, and tells on stdout each id whose write
 * has resolved.
 */
import { insertNote, openNotes } from './note-store.ts';

const [folder = ''] = process.argv.slice(2);
const store = await openNotes(folder);
let id = 0;

async function writeForEver(): Promise<never> {
  for (;;) {
    const pair = id;
    id += 2;
    await store.write([insertNote(store, pair), insertNote(store, pair + 1)]);
    // Waits for a reader that is slow, which `writeSync` does not.
    process.stdout.write(`${pair}\n`);
  }
}

await Promise.all(Array.from({ length: 8 }, writeForEver));
