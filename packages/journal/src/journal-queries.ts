import { PreparedQuery, rowOf, type Store } from '@hypha/store';
import type { Insertable, Selectable } from 'kysely';
import type { JournalTables } from './journal-schema.ts';

type Row<T extends keyof JournalTables> = Selectable<JournalTables[T]>;
type RunChange = Pick<Row<'run'>, (typeof RUN_CHANGES)[number]>;
type NewRun = Omit<Insertable<JournalTables['run']>, 'position'>;

/** What an append changes of its run. */
const RUN_CHANGES = [
  'seq',
  'due',
  'head',
  'state',
  'steps',
  'startedAt',
  'endedAt',
  'problem',
  'simulated',
  'holder',
  'bootId',
  'cancelRequestedAt',
  'wakeAt',
] as const;

const NEW_RUN = [
  ...RUN_CHANGES,
  'run',
  'digest',
  'revision',
  'realm',
  'deployment',
  'generation',
  'mode',
  'envelope',
  'source',
  'acceptedAt',
  'expSeconds',
  'epoch',
  'onFailure',
  'deleteData',
  'message',
  'told',
  'keyids',
] as const;

const RESERVED = ['milliCpus', 'memoryBytes', 'storageBytes'] as const;

export type JournalQueries = ReturnType<typeof prepareQueries>;

/** The writes of every run, built once: what they cost to build is more than what they cost to run. */
export function prepareQueries({ db }: Pick<Store<JournalTables>, 'db'>) {
  return {
    insertRun: new PreparedQuery<NewRun>((value) =>
      db.insertInto('run').values(rowOf(value, NEW_RUN)).returning('position'),
    ),
    /** Changes one row, unless others have written to the run or it has another epoch. */
    updateRun: new PreparedQuery<RunChange & { run: string; seqBefore: number; epoch: number }>(
      (value) =>
        db
          .updateTable('run')
          .set(rowOf(value, RUN_CHANGES))
          .where('run', '=', value('run'))
          .where('seq', '=', value('seqBefore'))
          .where('epoch', '=', value('epoch')),
    ),
    insertEvent: new PreparedQuery<Row<'event'>>((value) =>
      db.insertInto('event').values(rowOf(value, ['run', 'seq', 'body'])),
    ),
    insertReplay: new PreparedQuery<Row<'replay'>>((value) =>
      db.insertInto('replay').values(rowOf(value, ['value', 'digest', 'keepUntilSeconds'])),
    ),
    putReservation: new PreparedQuery<Row<'reservation'>>((value) =>
      db
        .insertInto('reservation')
        .values(rowOf(value, ['realm', 'deployment', 'source', ...RESERVED]))
        .onConflict((row) =>
          row.columns(['realm', 'deployment', 'source']).doUpdateSet(rowOf(value, RESERVED)),
        ),
    ),
    dropReservation: new PreparedQuery<Pick<Row<'reservation'>, 'realm' | 'deployment' | 'source'>>(
      (value) =>
        db
          .deleteFrom('reservation')
          .where('realm', '=', value('realm'))
          .where('deployment', '=', value('deployment'))
          .where('source', '=', value('source')),
    ),
  };
}
