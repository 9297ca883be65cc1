import { HyphaError } from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import { sql } from 'kysely';
import type { JournalTables } from './journal-schema.ts';
import type { DeploymentName } from './record-book.ts';
import type { RunMemory } from './run-memory.ts';

/** One secret as an envelope gave it to this node. */
export type GivenSecret = StoredValue | { readonly name: string; readonly version: 'kept' };

/** A value, sealed to the node's own key. */
interface StoredValue {
  readonly name: string;
  /** Keyed hash of the value, hex. */
  readonly version: string;
  readonly box: string;
  /** Base64 of the public key it is sealed to. */
  readonly sealedTo: string;
}

/** A value this node holds, without it. */
export interface SecretEntry extends DeploymentName {
  readonly name: string;
  readonly version: string;
  /** When this node first had it, epoch milliseconds. */
  readonly createdAt: number;
}

export interface SealedEntry extends SecretEntry {
  readonly box: string;
  readonly sealedTo: string;
}

/** Runs that took nothing into use: what they were given is not what the node holds. */
const ENDED_IN_VAIN = ['failed', 'cancelled', 'rejected'] as const;
const DECLARES_NOTHING = ['plan', 'task'] as const;
const ENTRY_COLUMNS = ['realm', 'deployment', 'name', 'version', 'createdAt'] as const;

/**
 * Sealed values by deployment, name and version, and which of them each run was given. The journal keeps boxes and
 * never opens one. A value is kept for as long as an unfinished run, a record, or the deployment's last successful
 * run has it.
 */
export class SecretBook {
  readonly #store: Store<JournalTables>;
  readonly #memory: RunMemory;
  readonly #nowMs: () => number;

  constructor(store: Store<JournalTables>, memory: RunMemory, nowMs: () => number) {
    this.#store = store;
    this.#memory = memory;
    this.#nowMs = nowMs;
  }

  /**
   * The writes with which a run takes its secrets in. One that is to be kept stands for the value of the newest
   * run that did not fail; its write fails the list when that value is dropped meanwhile. Throws `E_SECRET` for
   * one that is not held.
   */
  async planGive(
    run: string,
    of: DeploymentName,
    secrets: readonly GivenSecret[],
  ): Promise<readonly Write[]> {
    const writes: Write[] = [];
    const { realm, deployment } = of;
    for (const secret of secrets) {
      if (secret.version === 'kept') {
        writes.push(this.#planKeep(run, of, secret.name, await this.#getHeld(of, secret.name)));
        continue;
      }
      const { db } = this.#store;
      const row = { realm, deployment, ...(secret as StoredValue), createdAt: this.#nowMs() };
      const { name, version } = secret;
      writes.push(
        {
          query: db
            .insertInto('secret')
            .values(row)
            .onConflict((held) => held.doNothing()),
        },
        { query: db.insertInto('runSecret').values({ run, name, version }) },
      );
    }
    return writes;
  }

  /** Name → version, as the run was given them. */
  async readGiven(run: string): Promise<Readonly<Record<string, string>>> {
    const known = this.#memory.findGiven(run);
    if (known !== undefined) return known;
    const rows = await this.#store.db
      .selectFrom('runSecret')
      .select(['name', 'version'])
      .where('run', '=', run)
      .execute();
    return Object.fromEntries(rows.map(({ name, version }) => [name, version]));
  }

  /** Undefined when the deployment has no such value here. */
  async find(
    of: DeploymentName,
    { secret, version }: { readonly secret: string; readonly version: string },
  ): Promise<SealedEntry | undefined> {
    return await this.#store.db
      .selectFrom('secret')
      .selectAll()
      .where('realm', '=', of.realm)
      .where('deployment', '=', of.deployment)
      .where('name', '=', secret)
      .where('version', '=', version)
      .executeTakeFirst();
  }

  /** By deployment and name, newest first. */
  async list(): Promise<SecretEntry[]> {
    return await this.#store.db
      .selectFrom('secret')
      .select(ENTRY_COLUMNS)
      .orderBy('realm')
      .orderBy('deployment')
      .orderBy('name')
      .orderBy('createdAt', 'desc')
      .execute();
  }

  /** Those not sealed to this key. */
  async listSealedElsewhere(sealedTo: string, limit: number): Promise<SealedEntry[]> {
    return await this.#store.db
      .selectFrom('secret')
      .selectAll()
      .where('sealedTo', '!=', sealedTo)
      .limit(limit)
      .execute();
  }

  /** The same values in other boxes. */
  async reseal(entries: readonly SealedEntry[]): Promise<void> {
    if (entries.length === 0) return;
    const { db } = this.#store;
    await this.#store.write(
      entries.map(({ realm, deployment, name, version, box, sealedTo }) => ({
        query: db
          .updateTable('secret')
          .set({ box, sealedTo })
          .where('realm', '=', realm)
          .where('deployment', '=', deployment)
          .where('name', '=', name)
          .where('version', '=', version),
      })),
    );
  }

  /** Forgets values that nothing has any more. Returns how many. */
  async collect(): Promise<number> {
    const { db } = this.#store;
    const unused = await db
      .selectFrom('secret')
      .select('version')
      .where(IS_UNUSED)
      .limit(1)
      .execute();
    // A write that changes nothing would still be an fsync.
    if (unused.length === 0) return 0;
    const [result] = await this.#store.write([{ query: db.deleteFrom('secret').where(IS_UNUSED) }]);
    return result?.rowsAffected ?? 0;
  }

  #planKeep(
    run: string,
    { realm, deployment }: DeploymentName,
    name: string,
    version: string,
  ): Write {
    const query = this.#store.db
      .insertInto('runSecret')
      .columns(['run', 'name', 'version'])
      .expression((build) =>
        build
          .selectFrom('secret')
          .select([sql.lit(run).as('run'), 'name', 'version'])
          .where('realm', '=', realm)
          .where('deployment', '=', deployment)
          .where('name', '=', name)
          .where('version', '=', version),
      );
    return { query, expectRows: 1 };
  }

  async #getHeld({ realm, deployment }: DeploymentName, name: string): Promise<string> {
    const { db } = this.#store;
    const stored = db
      .selectFrom('secret')
      .select('secret.version')
      .where('secret.realm', '=', realm)
      .where('secret.deployment', '=', deployment)
      .where('secret.name', '=', name);
    const given = await stored
      .innerJoin('runSecret', (join) =>
        join
          .onRef('runSecret.name', '=', 'secret.name')
          .onRef('runSecret.version', '=', 'secret.version'),
      )
      .innerJoin('run', 'run.run', 'runSecret.run')
      .where('run.state', 'not in', ENDED_IN_VAIN)
      .where('run.mode', 'not in', DECLARES_NOTHING)
      .orderBy('run.position', 'desc')
      .limit(1)
      .executeTakeFirst();
    // Its run may have been dropped long ago: then what a record still has is the value.
    const held = given ?? (await stored.orderBy('createdAt', 'desc').limit(1).executeTakeFirst());
    if (held !== undefined) return held.version;
    throw new HyphaError('E_SECRET', `${realm}/${deployment} has no secret ${name} here to keep`, {
      where: { path: `secrets.${name}` },
      hint: `give it: --secret ${name}=env:NAME`,
    });
  }
}

/**
 * A version is found in a record's spec by its text: 128 bits of a keyed hash are in no spec by chance.
 */
const IS_UNUSED = sql<boolean>`
  not exists (select 1 from runSecret join run on run.run = runSecret.run
    where runSecret.name = secret.name and runSecret.version = secret.version
      and run.endedAt is null)
  and not exists (select 1 from record where record.realm = secret.realm
    and record.deployment = secret.deployment and instr(record.spec, secret.version) > 0)
  and not exists (select 1 from provisional where provisional.realm = secret.realm
    and provisional.deployment = secret.deployment and instr(provisional.spec, secret.version) > 0)
  and not exists (select 1 from runSecret where runSecret.name = secret.name
    and runSecret.version = secret.version and runSecret.run = (
      select run.run from run where run.realm = secret.realm and run.deployment = secret.deployment
        and run.state = 'succeeded' and run.mode not in ('plan', 'task') order by run.position desc limit 1))`;
