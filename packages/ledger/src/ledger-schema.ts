import type { Migration } from '@hypha/store';

/**
 * The ledger's tables. JSON is TEXT, times are epoch milliseconds unless said otherwise, digests are
 * lower-case hex. SQL stays in the subset PostgreSQL shares (design §6).
 */
export interface LedgerDb {
  /**
   * Append-only: `position` counts from 0 without gaps, rows are never changed or removed. `envelope` is
   * the exact canonical JSON that every reader gets and that the log is over.
   */
  entries: {
    position: number;
    at: number;
    kind: EntryKind;
    digest: string;
    envelope: string;
    /** Of receipts. */
    run: string | null;
    /** Of enrolments, receipts, and admissions that name a node. */
    node: string | null;
    /** `ROW_HASH` of the row: over what the log is not over. */
    row_hash: Uint8Array | null;
  };
  /**
   * The Merkle tree over `entries`: the hash of each complete subtree of 2^level leaves, counted by `idx`
   * from the left. Written with the entry that completes it, never changed.
   */
  log_nodes: { level: number; idx: number; hash: Uint8Array };
  /**
   * The newest checkpoint that was handed out; one row, `id` 0. `authority_seq`: the authority that named the
   * key it is signed with.
   */
  log_checkpoint: { id: number; note: string; authority_seq: number };
  /** Which entry is which link of the authority chain; genesis is seq 0. */
  authority_updates: { seq: number; position: number };
  /**
   * What an admission still permits. `token_hash`: its digest where it names a node. `spent_by`: the node that
   * stands under it, after a re-key the newer one.
   */
  admissions: { digest: string; token_hash: string; spent_by: string | null };
  nodes: NodeRow;
  /** The newest receipt of each node, by its own count. */
  receipt_chains: { node: string; seq: number; digest: string };
  /** A node's labels once more, to select by. */
  node_labels: { node: string; key: string; value: string };
}

export type EntryKind = 'authority' | 'admission' | 'enrol' | 'receipt';

export interface NodeRow {
  id: string;
  name: string;
  keyid: string;
  /** Base64 of the raw key. */
  public_key: string;
  labels: string;
  realms: string;
  enrolled_at: number;
  /** X25519 key that secrets are sealed to, base64. Empty where an older version stored the node. */
  seal_key: string;
  /** `iat` of the enrol statement that named `seal_key`, seconds: another has to be later. */
  enrolled_iat: number;
  /** 1 when the authority revoked it, or when it was replaced. */
  revoked: number;
  /** The node that has its name now. */
  replaced_by: string | null;
  /** When the ledger last heard of it: enrolment or report, by the ledger's clock. */
  heard_at: number;
  /** Of the newest report; 0 before the first. */
  report_seq: number;
  reported_at: number | null;
  /** The newest report as it was signed. */
  report: string | null;
  boot_id: string;
  uptime_ms: number;
  facts: string;
  free: string;
}

/** What is kept beside an entry and only the ledger says: its place and time, and what it is found by. */
export const ROW_HASH = `sha256_concat(cast(
  position || ' ' || at || ' ' || coalesce(run, '') || ' ' || coalesce(node, '') as blob))`;

/** 2^53 entries, as far as positions are exact. */
const LEVELS = 53;

export const LEDGER_MIGRATIONS: readonly Migration[] = [
  {
    name: '0001-ledger',
    up: [
      `create table entries (
        position integer primary key,
        at integer not null,
        kind text not null,
        digest text not null unique,
        envelope text not null,
        run text,
        node text
      ) strict`,
      'create index entries_by_kind on entries (kind, position)',
      'create index entries_by_run on entries (run, position) where run is not null',
      'create index entries_by_node on entries (node, position) where node is not null',
      `create table authority_updates (
        seq integer primary key,
        position integer not null unique references entries (position)
      ) strict`,
      `create table admissions (
        digest text primary key references entries (digest),
        token_hash text not null unique,
        spent_by text
      ) strict`,
      `create table nodes (
        id text primary key,
        name text not null unique,
        keyid text not null unique,
        public_key text not null,
        labels text not null,
        realms text not null,
        enrolled_at integer not null,
        revoked integer not null,
        heard_at integer not null,
        report_seq integer not null,
        reported_at integer,
        report text,
        boot_id text not null,
        uptime_ms integer not null,
        facts text not null,
        free text not null
      ) strict`,
      `create table node_labels (
        node text not null references nodes (id),
        key text not null,
        value text not null,
        primary key (node, key)
      ) strict`,
      'create index node_labels_by_value on node_labels (key, value, node)',
    ],
  },
  {
    name: '0002-log-tree',
    up: [
      `create table log_nodes (
        level integer not null,
        idx integer not null,
        hash blob not null,
        primary key (level, idx)
      ) strict, without rowid`,
      `create table log_checkpoint (
        id integer primary key check (id = 0),
        note text not null,
        authority_seq integer not null
      ) strict`,
      // The tree over what an older version has stored, level by level.
      `insert into log_nodes (level, idx, hash)
        select 0, position, sha256_concat(x'00', cast(envelope as blob)) from entries`,
      ...Array.from(
        { length: LEVELS },
        (_, level) => `insert into log_nodes (level, idx, hash)
          select ${level + 1}, l.idx / 2, sha256_concat(x'01', l.hash, r.hash)
          from log_nodes l join log_nodes r on r.level = ${level} and r.idx = l.idx + 1
          where l.level = ${level} and l.idx % 2 = 0`,
      ),
    ],
  },
  {
    name: '0003-enrolment',
    up: [
      `alter table nodes add column seal_key text not null default ''`,
      'alter table nodes add column enrolled_iat integer not null default 0',
      'alter table nodes add column replaced_by text',
    ],
  },
  {
    name: '0004-receipt-chains',
    up: [
      `create table receipt_chains (
        node text primary key,
        seq integer not null,
        digest text not null
      ) strict`,
    ],
  },
  {
    name: '0005-row-hash',
    up: [
      'alter table entries add column row_hash blob',
      `update entries set row_hash = sha256_concat(cast(
        position || ' ' || at || ' ' || coalesce(run, '') || ' ' || coalesce(node, '') as blob))`,
    ],
  },
];
