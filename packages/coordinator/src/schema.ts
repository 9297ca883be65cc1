import type { Migration } from '@hypha/store';
import type { Generated } from 'kysely';

/**
 * The coordinator's tables. JSON is TEXT, times are epoch milliseconds, digests are lower-case hex. The
 * SQL stays in the subset PostgreSQL shares (design §6). Nothing the coordinator decides lives anywhere
 * else: killed at any point, it goes on from these rows.
 */
export interface CoordinatorDb {
  /** The authority chain as far as it is known here, genesis at seq 0. */
  authority_updates: { seq: number; digest: string; envelope: string };
  /** Last known `NodeView` of the ledger, so that placement works while the ledger is away. */
  nodes: { id: string; view: string };
  /** Nodes kept away from new work. `by_key`: who asked, null for an unsigned caller on loopback. */
  cordons: { node: string; at: number; by_key: string | null };
  /** One signed script. `placed_at`: null while it is only known because a node told of it. */
  revisions: {
    digest: string;
    id: string;
    realm: string;
    deployment: string;
    generation: number;
    mode: string;
    /** `limits.resources`. */
    resources: string;
    /** `aud.count`. */
    wanted: number;
    /** Seconds. */
    exp: number;
    message: string;
    envelope: string;
    known_at: number;
    placed_at: number | null;
  };
  /** Replay memory: `id <revision id>` and `nonce <keyid> <nonce>`. */
  spent_tokens: { token: string; digest: string };
  /** The highest generation ever admitted for a deployment; survives destroy (design §8). */
  generation_marks: { realm: string; deployment: string; generation: number; digest: string };
  /**
   * One revision on one node. `fold`, `last_seq` and `head` are what the node's journal says; `guess` is
   * the problem the coordinator assumes until it says anything. `state` is what follows from both.
   */
  runs: {
    run: string;
    digest: string;
    revision: string;
    node: string;
    realm: string;
    deployment: string;
    generation: number;
    mode: string;
    message: string;
    submitted_at: number;
    state: string;
    fold: string;
    last_seq: number;
    head: string;
    guess: string | null;
    guessed_at: number | null;
    /** When a cancel of it was accepted here; null: none stands. */
    cancel_requested_at: number | null;
    /** `OpenSteps`; null: not known. */
    open_steps: string | null;
    /** 1: it did not succeed, and its node keeps what it made, signed so. */
    keeps: Generated<number>;
  };
  /** Messages no node has answered. `due_at`: the lease; not sent again before. */
  inbox_messages: {
    /** Order in which they are sent. */
    position: Generated<number>;
    id: string;
    node: string;
    run: string;
    attempts: number;
    due_at: number;
    expires_at: number;
    /** 1: its run is cancelled, and is not sent before its node has taken the cancel. */
    held: Generated<number>;
  };
  /** One signed cancel. `keyids`: JSON; `may_cancel_any`: 1 when it may end what others signed. */
  cancellations: {
    digest: string;
    id: string;
    target: string;
    realm: string;
    keyids: string;
    may_cancel_any: number;
    envelope: string;
    accepted_at: number;
  };
  /** A cancel on its way to one node, and kept after that: what a target that arrives later meets. */
  cancel_messages: {
    position: Generated<number>;
    cancellation: string;
    target: string;
    node: string;
    /** How it ended, null while it is sent: `taken` and `refused` by the node, or `expired`. */
    outcome: CancelOutcome | null;
    attempts: number;
    due_at: number;
    expires_at: number;
  };
  journal_events: { run: string; seq: number; type: string; hash: string; event: string };
  receipts: { run: string; digest: string; envelope: string };
  /** What `GET /v1/events` tells, newest `changesKept`. */
  changes: { id: Generated<number>; at: number; type: string; data: string };
}

export type CancelOutcome = 'taken' | 'refused' | 'expired';

export const COORDINATOR_MIGRATIONS: readonly Migration[] = [
  {
    name: '0001-first',
    up: [
      `create table authority_updates (
        seq integer primary key, digest text not null unique, envelope text not null)`,
      'create table nodes (id text primary key, view text not null)',
      'create table cordons (node text primary key, at integer not null, by_key text)',
      `create table revisions (
        digest text primary key, id text not null, realm text not null, deployment text not null,
        generation integer not null, mode text not null, resources text not null,
        wanted integer not null, exp integer not null, message text not null, envelope text not null,
        known_at integer not null, placed_at integer)`,
      'create index revisions_deployment on revisions (realm, deployment, generation)',
      'create index revisions_time on revisions (known_at)',
      'create table spent_tokens (token text primary key, digest text not null)',
      'create index spent_tokens_digest on spent_tokens (digest)',
      `create table generation_marks (
        realm text not null, deployment text not null, generation integer not null,
        digest text not null, primary key (realm, deployment))`,
      'create index generation_marks_digest on generation_marks (digest)',
      `create table runs (
        run text primary key, digest text not null, revision text not null, node text not null,
        realm text not null, deployment text not null, generation integer not null,
        mode text not null, message text not null, submitted_at integer not null,
        state text not null, fold text not null, last_seq integer not null, head text not null,
        guess text, guessed_at integer)`,
      'create index runs_time on runs (submitted_at, run)',
      'create index runs_digest on runs (digest)',
      'create index runs_deployment on runs (realm, deployment, submitted_at)',
      'create index runs_holding on runs (realm, deployment, node, generation)',
      'create index runs_node on runs (node, submitted_at)',
      `create table inbox_messages (
        position integer primary key autoincrement, id text not null unique, node text not null,
        run text not null, attempts integer not null, due_at integer not null,
        expires_at integer not null)`,
      'create index inbox_messages_node on inbox_messages (node, due_at)',
      'create index inbox_messages_run on inbox_messages (run)',
      'create index inbox_messages_expiry on inbox_messages (expires_at)',
      `create table journal_events (
        run text not null, seq integer not null, type text not null, hash text not null,
        event text not null, primary key (run, seq))`,
      'create table receipts (run text primary key, digest text not null, envelope text not null)',
      `create table changes (
        id integer primary key autoincrement, at integer not null, type text not null,
        data text not null)`,
    ],
  },
  {
    name: '0002-cancellations',
    up: [
      'alter table runs add column cancel_requested_at integer',
      'alter table inbox_messages add column held integer not null default 0',
      `create table cancellations (
        digest text primary key, id text not null, target text not null, realm text not null,
        keyids text not null, may_cancel_any integer not null, envelope text not null,
        accepted_at integer not null)`,
      'create index cancellations_target on cancellations (target)',
      'create index cancellations_time on cancellations (accepted_at)',
      `create table cancel_messages (
        position integer primary key autoincrement, cancellation text not null, target text not null,
        node text not null, outcome text, attempts integer not null, due_at integer not null,
        expires_at integer not null, unique (cancellation, node))`,
      'create index cancel_messages_node on cancel_messages (node, outcome, due_at)',
      'create index cancel_messages_target on cancel_messages (target, node)',
      'create index cancel_messages_expiry on cancel_messages (outcome, expires_at)',
    ],
  },
  {
    name: '0003-open-steps',
    // Of the runs there are nobody counted: they stay without.
    up: ['alter table runs add column open_steps text'],
  },
  {
    name: '0004-kept-failures',
    up: ['alter table runs add column keeps integer not null default 0'],
  },
];
