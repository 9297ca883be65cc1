import type { Migration } from '@hypha/store';

/** How the tables of `journal-schema.ts` came to be. Append-only. */
export const MIGRATIONS: readonly Migration[] = [
  {
    name: '0001-journal',
    up: [
      `create table meta (id integer primary key check (id = 1), createdAt integer not null,
        receiptSeq integer not null, receiptDigest text) strict`,
      `create table run (position integer primary key autoincrement, run text not null unique,
        digest text not null unique, revision text not null, realm text not null,
        deployment text not null, generation integer not null, mode text not null,
        envelope text not null, source text not null, acceptedAt integer not null,
        expSeconds integer not null, epoch integer not null, holder text, bootId text,
        seq integer not null, head text not null, state text not null, steps integer not null,
        startedAt integer, endedAt integer, problem text, simulated integer not null,
        onFailure text not null, deleteData text not null, message text not null, due integer not null,
        told integer not null) strict`,
      'create index runToTell on run (position) where told < due',
      'create index runByDeployment on run (realm, deployment, position)',
      'create index runByEnd on run (endedAt, position)',
      `create table event (run text not null, seq integer not null, body text not null,
        primary key (run, seq)) strict`,
      `create table replay (value text primary key, digest text not null,
        keepUntilSeconds integer not null) strict`,
      'create index replayByAge on replay (keepUntilSeconds)',
      `create table mark (realm text not null, deployment text not null,
        generation integer not null, digest text not null, primary key (realm, deployment)) strict`,
      `create table record (rid text primary key, realm text not null, deployment text not null,
        kind text not null, name text not null, spec text not null, specHash text not null,
        status text not null, createdBy text not null, lastOp text not null,
        deleteData integer not null, unsettled integer not null, version integer not null) strict`,
      'create index recordByDeployment on record (realm, deployment)',
      `create table provisional (run text not null, position integer not null,
        step integer not null, rid text not null, realm text not null, deployment text not null,
        kind text not null, name text not null, spec text not null, specHash text not null,
        action text not null, settled integer not null, primary key (run, step)) strict`,
      'create index provisionalByDeployment on provisional (realm, deployment, position, step)',
      `create table reservation (realm text not null, deployment text not null, source text not null,
        milliCpus integer not null, memoryBytes integer not null, storageBytes integer not null,
        primary key (realm, deployment, source)) strict`,
      `create table receipt (seq integer primary key, run text not null unique,
        digest text not null, envelope text not null) strict`,
      `create table cursor (destination text not null, topic text not null, seq integer not null,
        primary key (destination, topic)) strict`,
    ],
  },
  {
    name: '0002-secrets',
    up: [
      `create table secret (realm text not null, deployment text not null, name text not null,
        version text not null, box text not null, sealedTo text not null, createdAt integer not null,
        primary key (realm, deployment, name, version)) strict`,
      `create table runSecret (run text not null, name text not null, version text not null,
        primary key (run, name)) strict`,
      'create index runSecretByVersion on runSecret (name, version)',
    ],
  },
  {
    name: '0003-replay-horizon',
    up: [
      // A journal that is in use has admitted work by its clock.
      'alter table meta add column dated integer not null default 1',
      'alter table meta add column forgottenSeconds integer not null default 0',
    ],
  },
  {
    name: '0004-durable-runs',
    up: [
      "alter table run add column keyids text not null default '[]'",
      'alter table run add column cancelRequestedAt integer',
      'alter table run add column wakeAt integer',
      `update run set keyids = coalesce((select json_extract(event.body, '$.body.keyids')
        from event where event.run = run.run and event.seq = 1), '[]')`,
      `create table tombstone (target text not null, realm text not null, keyids text not null,
        mayCancelAny integer not null, requestedAt integer not null,
        forgetAtSeconds integer not null, primary key (target, realm, keyids)) strict`,
      'create index tombstoneByAge on tombstone (forgetAtSeconds)',
      `create table plan (run text primary key, hash text not null, document text not null) strict`,
      'create index planByHash on plan (hash)',
      `create table undone (run text not null, step integer not null,
        primary key (run, step)) strict`,
    ],
  },
  {
    name: '0005-forgotten-cancels',
    up: [
      'alter table meta add column forgottenCancelSeconds integer not null default 0',
      // Whether there were any is not known: as if there had been.
      'update meta set forgottenCancelSeconds = max(0, forgottenSeconds - 600)',
    ],
  },
];
