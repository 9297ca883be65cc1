/** A process whose database breaks under it: exits 3 when it was told a row count all the same. */
import { noteIds, openNotes } from './note-store.ts';

const [folder = ''] = process.argv.slice(2);
const store = await openNotes(folder);
process.send?.('open');
process.once('message', () => {
  // Caught on purpose: the process has to end even when every caller copes.
  noteIds(store).then(
    () => process.exit(3),
    () => undefined,
  );
});
