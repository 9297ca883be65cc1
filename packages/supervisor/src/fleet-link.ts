import { CoordinatorClient, isLedgerAway, LedgerClient } from '@hypha/client';
import {
  type Boot,
  type Joined,
  joinFleet,
  type NodeKeys,
  type NodeSample,
  ReportBuffer,
  Reporter,
  SealKeyPublisher,
} from '@hypha/identity';
import type { Journal } from '@hypha/journal';
import {
  type Authority,
  HyphaError,
  type JournalType,
  type NodeFacts,
  type Submission,
  type Verifier,
} from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { Membership, NodeAdmission } from './admission.ts';
import type { NodeCancellation } from './cancellation.ts';
import type { Clock } from './clock.ts';
import { EventDelivery } from './event-delivery.ts';
import { FleetLog } from './fleet-log.ts';
import { readInbox } from './inbox-reader.ts';
import { ReceiptDelivery } from './receipt-delivery.ts';
import { RetryLoop } from './retry-loop.ts';
import type { StateFolder } from './state-folder.ts';
import { LIMITS } from './supervisor-limits.ts';

interface FleetLinkDeps {
  readonly folder: StateFolder;
  readonly keys: NodeKeys;
  readonly boot: Boot;
  readonly joinToken: string | undefined;
  /** To trust without a token. */
  readonly genesis: string | undefined;
  readonly ledgerUrl: string | undefined;
  readonly coordinatorUrl: string | undefined;
  /** Certificates (PEM) to trust at https services; undefined: the system's. */
  readonly ca: string | undefined;
  readonly journal: Journal;
  readonly facts: () => Promise<NodeFacts>;
  readonly sample: () => Promise<NodeSample>;
  readonly verifier: Verifier;
  readonly clock: Clock;
  readonly log: Logger;
  /** The authority was read or has grown: what was judged by an older one is to be judged again. */
  readonly onAuthority: () => void;
}

const CHANGES_CAPACITY: ReadonlySet<JournalType> = new Set(['accepted', 'committed', 'finished']);

/** What comes in from the coordinator goes the way of everything else. */
interface FleetDoors {
  readonly admission: NodeAdmission;
  readonly cancellation: NodeCancellation;
}

interface CoordinatorLink {
  readonly coordinator: CoordinatorClient;
  readonly acknowledge: EventDelivery['acknowledge'];
}

/**
 * This node's place in its fleet: it joins, follows the authority, reports, listens to the coordinator and
 * tells it and the ledger what happened. All of it goes on by itself while they come and go; nothing here
 * is needed for accepted work to finish (G8).
 */
export class FleetLink {
  /** Open once the node has joined. */
  readonly fleetLog: FleetLog;
  readonly #deps: FleetLinkDeps;
  readonly #stopping = new AbortController();
  #joined: Joined | undefined;
  /** Why the node has not joined yet. */
  #hindrance = 'it has just started';
  #loops: readonly RetryLoop[] = [];
  #end: Promise<void> = Promise.resolve();

  #receipts: ReceiptDelivery | undefined;

  constructor(deps: FleetLinkDeps) {
    this.#deps = deps;
    const { verifier, clock, log } = deps;
    const folder = deps.folder.identity;
    this.fleetLog = new FleetLog({ folder, verifier, clock, log, authority: () => this.current() });
  }

  /** How long the oldest receipt waits to be in the ledger's log, seconds. */
  get unprovenSeconds(): number {
    return this.#receipts?.unprovenSeconds ?? 0;
  }

  /** Throws `E_UNAVAILABLE`, with the reason, before the node has enrolled. */
  getMembership(): Membership {
    const { node, name, labels, realms } = this.#getJoined().membership;
    return { id: node, name, labels, realms };
  }

  get authoritySeq(): number {
    return this.#joined?.authority.current.seq ?? 0;
  }

  current(): Authority {
    return this.#getJoined().authority.current;
  }

  /** Joins in the background, then serves until `stop`. */
  start(doors: FleetDoors): void {
    this.#end = this.#run(doors).catch((err: unknown) => {
      if (this.#stopping.signal.aborted) return;
      this.#hindrance = err instanceof HyphaError ? err.message : 'internal error';
      this.#deps.log.error({ err }, 'node cannot join');
    });
  }

  /** Something was journaled. */
  kick(): void {
    for (const loop of this.#loops) loop.kick();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#loops.map((loop) => loop.stop()));
    await this.#end;
  }

  #getJoined(): Joined {
    if (this.#joined !== undefined) return this.#joined;
    throw new HyphaError('E_UNAVAILABLE', `this node has not enrolled: ${this.#hindrance}`, {
      hint: 'the ledger has to know the node first: hypha node list',
    });
  }

  async #run(doors: FleetDoors): Promise<void> {
    const { folder, log } = this.#deps;
    const { signal } = this.#stopping;
    const joined = await this.#join();
    const buffer = await ReportBuffer.open(folder.reports);
    const ledger = this.#connect(joined.membership.ledger);
    await this.fleetLog.open(joined.authority, ledger);
    this.#joined = joined;
    joined.authority.onGrown(this.#deps.onAuthority);
    this.#deps.onAuthority();
    log.info({ node: joined.membership.node, name: joined.membership.name }, 'node joined');
    const { coordinator, acknowledge } = this.#openDelivery(joined, ledger);
    await Promise.all([
      this.fleetLog.run(signal),
      this.#reporter(joined, buffer).run(signal),
      this.#readInbox(joined, { coordinator, acknowledge }, doors),
    ]);
    await coordinator.http.close();
  }

  /** For ever: whatever breaks a stream, the next one may hold. */
  async #readInbox(
    { membership }: Joined,
    { coordinator, acknowledge }: CoordinatorLink,
    { admission, cancellation }: FleetDoors,
  ): Promise<void> {
    const { clock, log } = this.#deps;
    const { signal } = this.#stopping;
    const submit = (submission: Submission) => admission.submit(submission, 'inbox');
    const cancel = (submission: Submission) => cancellation.submit(submission);
    const { node } = membership;
    const deps = { client: coordinator.http, node, submit, cancel, acknowledge, log };
    while (!signal.aborted) {
      try {
        await readInbox({ ...deps, fleetLog: this.fleetLog }, signal);
      } catch (err) {
        log.error({ err }, 'inbox broken');
        await clock.sleep(LIMITS.deliveryMsMax, signal);
      }
    }
  }

  async #join(): Promise<Joined> {
    const { folder, log, ...deps } = this.#deps;
    let said: string | undefined;
    return await joinFleet(
      {
        ...deps,
        folder: folder.identity,
        connect: (baseUrl) => this.#connect(baseUrl),
        onFailure: ({ error, attempt, retryInMs }) => {
          this.#hindrance = error instanceof HyphaError ? error.message : 'internal error';
          // An admin may take a day: the same reason is said once.
          const level = said === this.#hindrance ? 'debug' : 'warn';
          said = this.#hindrance;
          log[level](
            { err: error, attempt, retryInMs, node: deps.keys.nodeId },
            'node not joined yet',
          );
        },
        onAuthorityFailure: (err) => {
          // A ledger that is away is routine; one that forks or rolls back is an attack or a disaster.
          log[isLedgerAway(err) ? 'debug' : 'error']({ err }, 'authority not read');
        },
      },
      this.#stopping.signal,
    );
  }

  #connect(baseUrl: string): LedgerClient {
    const { keys, ca } = this.#deps;
    return new LedgerClient({ baseUrl, signer: keys.signer, ca });
  }

  #openDelivery({ membership }: Joined, ledger: LedgerClient): CoordinatorLink {
    const { journal, keys, ca, clock, log, facts, boot, verifier } = this.#deps;
    const { signer } = keys;
    const coordinator = new CoordinatorClient({ baseUrl: membership.coordinator, signer, ca });
    const delivery = new EventDelivery({
      journal,
      log,
      send: (items, signal) => coordinator.sendOutbox(membership.node, { items }, { signal }),
    });
    const events = new RetryLoop({
      clock,
      log,
      name: 'delivery to the coordinator',
      work: (signal) => delivery.deliver(signal),
    });
    const { fleetLog } = this;
    const delivered = new ReceiptDelivery({ journal, ledger, fleetLog, verifier, clock, log });
    this.#receipts = delivered;
    const receipts = new RetryLoop({
      clock,
      log,
      name: 'delivery of receipts to the ledger',
      work: (signal) => delivered.deliver(signal),
    });
    const publisher = new SealKeyPublisher({ keys, ledger, facts, boot, clock });
    const sealKey = new RetryLoop({
      clock,
      log,
      name: 'publishing the sealing key',
      work: async (signal) => {
        await publisher.publish(signal);
        return false;
      },
    });
    this.#loops = [events, receipts, sealKey];
    for (const loop of this.#loops) loop.start();
    return {
      coordinator,
      acknowledge: (item) => {
        delivery.acknowledge(item);
        events.kick();
      },
    };
  }

  #reporter({ ledger }: Joined, buffer: ReportBuffer): Reporter {
    const { journal, keys, boot, clock, log, sample } = this.#deps;
    const reporter = new Reporter({
      keys,
      buffer,
      ledger,
      sample,
      boot,
      clock,
      intervalMs: LIMITS.reportMs,
      onFailure: ({ error, dropped }) => log.debug({ err: error, dropped }, 'report not delivered'),
    });
    // What is reserved changes there and nowhere else.
    journal.subscribe((_entry, events) => {
      if (events.some(({ body }) => CHANGES_CAPACITY.has(body.type))) reporter.reportSoon();
    });
    return reporter;
  }
}
