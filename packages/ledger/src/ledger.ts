import { join } from 'node:path';
import { type Envelope, fromBase64 } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import {
  createServer,
  type FindKey,
  type Logger,
  systemClock,
  type WallClock,
} from '@hypha/service';
import { openStore } from '@hypha/store';
import { AuthorityChain } from './authority-chain.ts';
import { ChallengeBook } from './challenge-book.ts';
import { Enrolments } from './enrolments.ts';
import { EntryIntake } from './entry-intake.ts';
import { serveLedger } from './ledger-api.ts';
import { LEDGER_MIGRATIONS, type LedgerDb } from './ledger-schema.ts';
import { LogEntries } from './log-entries.ts';
import { NodeRegistry } from './node-registry.ts';

export interface LedgerOptions {
  /** Folder of the store. */
  readonly state: string;
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Needed at the first start; later it has to be the same. */
  readonly genesis?: Envelope | undefined;
  readonly reportIntervalMs: number;
  readonly log: Logger;
  readonly clock?: WallClock;
}

export interface Ledger extends AsyncDisposable {
  readonly url: string;
  /** Idempotent. */
  close(): Promise<void>;
}

/**
 * The ledger, serving. Every 2xx answer is sent after an fsync of what it says (G2).
 * @throws HyphaError `E_AUTHORITY` without a genesis or with another one than before; `E_UNAVAILABLE` when
 *   another process owns the state
 */
export async function startLedger(options: LedgerOptions): Promise<Ledger> {
  const { log, clock = systemClock, reportIntervalMs } = options;
  const nowMs = () => clock.nowMs();
  const verifier = nodeVerifier;
  const store = await openStore<LedgerDb>({
    file: join(options.state, 'ledger.db'),
    migrations: LEDGER_MIGRATIONS,
  });
  try {
    const entries = new LogEntries(store, verifier);
    const authority = await AuthorityChain.open(
      { store, entries, verifier, nowMs },
      options.genesis,
    );
    const nodes = new NodeRegistry({ store, verifier, reportIntervalMs, nowMs });
    const challenges = new ChallengeBook(nowMs);
    const deps = { store, entries, authority, nodes, verifier, nowMs };
    const server = createServer({
      name: 'hypha-ledger',
      version: '0.1.0',
      log,
      clock,
      findKey: findKeyIn(authority, nodes, nowMs),
    });
    serveLedger(server, {
      authority,
      challenges,
      enrolments: new Enrolments({ ...deps, challenges }),
      entries,
      intake: new EntryIntake(deps),
      nodes,
    });
    server.gauge('hypha_ledger_commits', 'Transactions with an fsync since the start.', () => {
      return store.counts().commits;
    });
    server.gauge('hypha_ledger_authority_seq', 'Newest authority update.', () => {
      return authority.current.seq;
    });
    const url = await server.listen(options);
    const close = async () => {
      await server.close();
      await store.close();
    };
    log.info({ url, authoritySeq: authority.current.seq }, 'ledger ready');
    return { url, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** Keys the authority grants anything now, and nodes that are not revoked. */
function findKeyIn(authority: AuthorityChain, nodes: NodeRegistry, nowMs: () => number): FindKey {
  return async (keyid) => {
    const record = authority.current.findKey(keyid);
    if (record !== undefined) {
      const seconds = nowMs() / 1000;
      const { notBefore, notAfter } = record.grant;
      const usable = record.status === 'active' && notBefore <= seconds && seconds <= notAfter;
      return usable ? record.publicKey : undefined;
    }
    const node = await nodes.findByKey(keyid);
    return node === undefined || node.revoked === 1 ? undefined : fromBase64(node.public_key);
  };
}
