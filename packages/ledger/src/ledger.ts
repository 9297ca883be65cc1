import { join } from 'node:path';
import { base64, type Envelope } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import {
  createServer,
  type FindKey,
  grantedKey,
  type ListenerConfig,
  type Logger,
  nodeKey,
  systemClock,
  type WallClock,
} from '@hypha/service';
import { openStore } from '@hypha/store';
import { AuthorityChain } from './authority-chain.ts';
import { ChallengeBook } from './challenge-book.ts';
import { Checkpoints } from './checkpoints.ts';
import { Enrolments } from './enrolments.ts';
import { EntryIntake } from './entry-intake.ts';
import { serveLedger } from './ledger-api.ts';
import { ensureLedgerKey } from './ledger-key.ts';
import { LEDGER_MIGRATIONS, type LedgerDb } from './ledger-schema.ts';
import { serveLog } from './log-api.ts';
import { checkLog } from './log-check.ts';
import { LogEntries } from './log-entries.ts';
import { LogTree } from './log-tree.ts';
import { NodeRegistry } from './node-registry.ts';
import { PendingNodes } from './pending-nodes.ts';

/** With TLS and limits, the members of `ListenerConfig`. */
export interface LedgerOptions extends Partial<ListenerConfig> {
  /** Folder of the store and of the key that signs checkpoints, `ledger.pem`. */
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
 * The ledger, serving. Every 2xx answer is sent after an fsync of what it says (G2). The whole log is checked
 * first: what was damaged on disk is not served.
 * @throws LogDamage naming the first entry that is not what was appended
 * @throws HyphaError `E_ARGUMENT` when `ledger.pem` holds no key; `E_AUTHORITY` without a genesis or with
 *   another one than before; `E_UNAVAILABLE` when another process owns the state
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
    const tree = new LogTree({ store, verifier });
    const entries = new LogEntries({ store, tree, verifier });
    const checkedAt = clock.nowMs();
    const checked = await checkLog(store, verifier);
    const authority = await AuthorityChain.open(
      { store, entries, verifier, nowMs },
      options.genesis,
    );
    const signer = await ensureLedgerKey(join(options.state, 'ledger.pem'));
    const checkpoints = new Checkpoints({ store, tree, authority, verifier, signer, nowMs });
    await checkpoints.check();
    log.info({ entries: checked, tookMs: clock.nowMs() - checkedAt }, 'log checked');
    const pending = new PendingNodes({
      ...{ verifier, nowMs },
      isRevoked: (node) => authority.current.isNodeRevoked(node),
    });
    const nodes = new NodeRegistry({ store, verifier, reportIntervalMs, nowMs, pending });
    const challenges = new ChallengeBook(nowMs);
    const deps = { store, entries, authority, nodes, verifier, nowMs };
    const server = createServer({
      name: 'hypha-ledger',
      listener: options,
      version: '0.1.0',
      log,
      clock,
      findKey: findKeyIn(authority, nodes, nowMs),
    });
    serveLedger(server, {
      authority,
      challenges,
      enrolments: new Enrolments({ ...deps, challenges, pending }),
      entries,
      intake: new EntryIntake(deps),
      nodes,
    });
    serveLog(server, { checkpoints, tree });
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
    const { keyid, publicKey } = signer;
    log.info(
      {
        url,
        authoritySeq: authority.current.seq,
        key: { keyid, publicKey: base64(publicKey) },
        named: authority.current.ledgerKey?.keyid === keyid,
      },
      'ledger ready',
    );
    return { url, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** Keys the authority grants anything now, and nodes that are not revoked. */
function findKeyIn(authority: AuthorityChain, nodes: NodeRegistry, nowMs: () => number): FindKey {
  return async (keyid) => {
    const granted = grantedKey(authority.current, keyid, Math.floor(nowMs() / 1000));
    if (granted !== undefined) return granted;
    const row = await nodes.findByKey(keyid);
    return row === undefined || row.revoked === 1 ? undefined : nodeKey(nodes.view(row));
  };
}
