import { join } from 'node:path';
import { LedgerClient } from '@hypha/client';
import { base64, type Verifier } from '@hypha/protocol';
import { createServer, type HyphaServer, type Logger, readCa } from '@hypha/service';
import { openStore, type Store } from '@hypha/store';
import { callerKeys } from './api/caller-keys.ts';
import { addRoutes } from './api/routes.ts';
import { AuthorityMirror } from './authority-mirror.ts';
import { Cancellations } from './cancellations.ts';
import { ChangeFeed } from './change-feed.ts';
import type { Clock } from './clock.ts';
import { type CoordinatorConfig, VERSION } from './config.ts';
import { openCoordinatorKey } from './coordinator-key.ts';
import { DeploymentReader } from './deployment-reader.ts';
import { Doorbell } from './doorbell.ts';
import { Fleet } from './fleet.ts';
import { Housekeeping } from './housekeeping.ts';
import { Inbox } from './inbox.ts';
import { LedgerFollower } from './ledger-follower.ts';
import { ledgerSource } from './ledger-source.ts';
import { LogMirror } from './log-mirror.ts';
import { Outbox } from './outbox.ts';
import { RunBook } from './run-book.ts';
import { RunReader } from './run-reader.ts';
import { COORDINATOR_MIGRATIONS, type CoordinatorDb } from './schema.ts';
import { SettlingNodes } from './settling-nodes.ts';
import { Submissions } from './submissions.ts';

/** Every part of one coordinator, wired. */
export interface Coordinator {
  readonly authority: AuthorityMirror;
  readonly heads: LogMirror;
  readonly fleet: Fleet;
  readonly follower: LedgerFollower;
  readonly submissions: Submissions;
  readonly cancellations: Cancellations;
  readonly inbox: Inbox;
  readonly outbox: Outbox;
  readonly runs: RunReader;
  readonly deployments: DeploymentReader;
  readonly housekeeping: Housekeeping;
  readonly changes: ChangeFeed;
  readonly bell: Doorbell;
  readonly store: Store<CoordinatorDb>;
  readonly settling: SettlingNodes;
  readonly clock: Clock;
}

export interface RunningCoordinator {
  readonly url: string;
  /** Stops answering, then closes the store. */
  close(): Promise<void>;
}

/** Opens the store, listens, and follows the ledger until `close`. */
export async function startCoordinator(deps: {
  readonly config: Readonly<CoordinatorConfig>;
  readonly verifier: Verifier;
  readonly clock: Clock;
  readonly log: Logger;
}): Promise<RunningCoordinator> {
  const { config, clock, log } = deps;
  const store = await openStore<CoordinatorDb>({
    file: join(config.state, 'coordinator.sqlite'),
    migrations: COORDINATOR_MIGRATIONS,
  });
  const signer = openCoordinatorKey(config.key ?? join(config.state, 'coordinator.pem'));
  const { keyid } = signer;
  log.info({ keyid, publicKey: base64(signer.publicKey) }, 'key of this coordinator');
  const ca = readCa(config.tlsCa);
  const client = new LedgerClient({ baseUrl: config.ledger, signer, ca });
  const stopping = new AbortController();
  const background: Promise<void>[] = [];
  let server: HyphaServer | undefined;
  const close = async () => {
    stopping.abort();
    await server?.close();
    await Promise.all(background);
    await client.http.close();
    await store.close();
  };
  try {
    const coordinator = await compose({ ...deps, store, client });
    server = createServer({
      name: 'hypha-coordinator',
      version: VERSION,
      log,
      clock,
      findKey: callerKeys(coordinator),
      listener: config,
    });
    addRoutes(server, coordinator);
    server.gauge('hypha_log_disputed', '1 when the ledger contradicted itself.', () =>
      Number(coordinator.heads.isDisputed),
    );
    const url = await server.listen({ host: config.host, port: config.port });
    const { follower, housekeeping } = coordinator;
    background.push(follower.run(stopping.signal), housekeeping.run(stopping.signal));
    return { url, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function compose(deps: {
  readonly config: Readonly<CoordinatorConfig>;
  readonly verifier: Verifier;
  readonly clock: Clock;
  readonly log: Logger;
  readonly store: Store<CoordinatorDb>;
  readonly client: LedgerClient;
}): Promise<Coordinator> {
  const { config, verifier, clock, log, store, client } = deps;
  const bell = new Doorbell();
  const changes = new ChangeFeed({ store, bell });
  const authority = await AuthorityMirror.open({
    store,
    verifier,
    pinnedGenesis: config.genesis,
    onGrown: (_, added) => {
      log.info({ seq: authority.seq, added: added.length }, 'authority grew');
      inbox.authorityGrew();
    },
  });
  const heads = new LogMirror({
    ...{ verifier, clock, log },
    folder: config.state,
    proofs: client,
    authority: () => authority.find(),
  });
  await heads.open();
  const fleet = await Fleet.open({ store, authority, changes, clock });
  const inbox = new Inbox({ store, authority, heads, fleet, bell, clock, log });
  const follower = new LedgerFollower({
    source: ledgerSource(client),
    authority,
    heads,
    fleet,
    onNodes: () => inbox.closeRevoked(),
    clock,
    log,
    pollMs: config.ledgerPollMs,
  });
  const runs = new RunBook({ store, changes, bell });
  const settling = new SettlingNodes({ follower, clock });
  const shared = {
    store,
    verifier,
    authority,
    heads,
    fleet,
    follower,
    changes,
    bell,
    settling,
    clock,
    log,
  };
  return {
    ...shared,
    inbox,
    submissions: new Submissions({ ...shared, expiryGraceMs: config.expiryGraceMs }),
    cancellations: new Cancellations({ ...shared, expiryGraceMs: config.expiryGraceMs }),
    outbox: new Outbox({ ...shared, runs }),
    runs: new RunReader({ store, bell }),
    deployments: new DeploymentReader({ store }),
    housekeeping: new Housekeeping({
      ...shared,
      runs,
      retentionMs: config.retentionDays * 86_400_000,
    }),
  };
}
