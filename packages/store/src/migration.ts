import { HyphaError } from '@hypha/protocol';
import { Kysely } from 'kysely';
import type { Statement, StatementResult } from './sqlite-message.ts';
import { createWorkerDialect } from './worker-dialect.ts';

/**
 * One step of a schema's history. Append-only: a migration that was ever released keeps its name, its place
 * and its text.
 */
export interface Migration {
  readonly name: string;
  /** SQL statements run in order, or code against a `Kysely` that may change the schema. */
  readonly up: readonly string[] | ((db: Kysely<unknown>) => Promise<void>);
}

type RunStatement = (statement: Statement) => Promise<StatementResult>;

/**
 * Brings the schema up to date: each migration and its record in one transaction, so a crash leaves either
 * both or none. Refuses a file whose history is not a prefix of `migrations`.
 */
export async function applyMigrations(
  run: RunStatement,
  migrations: readonly Migration[],
  file: string,
): Promise<void> {
  const execute = (sql: string, ...parameters: unknown[]) => run({ sql, parameters });
  await execute(
    'create table if not exists store_migration (position integer primary key, name text not null unique) strict',
  );
  const { rows } = await execute('select name from store_migration order by position');
  const applied = (rows as { name: string }[]).map(({ name }) => name);
  for (const [position, name] of applied.entries()) {
    if (migrations[position]?.name !== name) {
      throw new HyphaError('E_INTERNAL', `store ${file} has migration ${name}, unknown here`, {
        hint: 'start the version of Hypha that wrote this state, or a newer one',
      });
    }
  }
  for (const [position, migration] of migrations.entries()) {
    if (position >= applied.length) await applyMigration(run, position, migration, file);
  }
}

async function applyMigration(
  run: RunStatement,
  position: number,
  { name, up }: Migration,
  file: string,
): Promise<void> {
  const execute = (sql: string, ...parameters: unknown[]) => run({ sql, parameters });
  await execute('begin immediate');
  try {
    if (typeof up === 'function') {
      await up(new Kysely<unknown>({ dialect: createWorkerDialect(run, 'migration') }));
    } else {
      for (const sql of up) await execute(sql);
    }
    await execute('insert into store_migration (position, name) values (?, ?)', position, name);
    await execute('commit');
  } catch (cause) {
    await execute('rollback');
    throw new HyphaError('E_INTERNAL', `cannot apply migration ${name} to store ${file}`, {
      cause,
    });
  }
}
