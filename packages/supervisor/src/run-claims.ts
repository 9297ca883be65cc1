import type { Journal, RunEntry } from '@hypha/journal';
import {
  CLAIM_REFUSALS,
  type ClaimAnswer,
  type RunnerRequest,
  type SupervisorNotice,
} from '@hypha/journal/client';
import {
  type DesiredResource,
  type Envelope,
  fromBase64,
  HyphaError,
  isHyphaError,
  type JournalEvent,
  type PlanDocument,
  toProblem,
} from '@hypha/protocol';
import type { SecretFiles } from '@hypha/sal';
import type { Logger } from '@hypha/service';
import { z } from 'zod';
import type { Dispatcher } from './dispatcher.ts';
import type { Reconciler } from './reconciler.ts';
import type { Revocations } from './revocations.ts';
import { LIMITS } from './supervisor-limits.ts';

type Claim = Extract<RunnerRequest, { method: 'claim' }>;
type Append = Extract<RunnerRequest, { method: 'append' }>;
type Park = Extract<RunnerRequest, { method: 'park' }>;
type ReadKept = Extract<RunnerRequest, { method: 'read-kept' }>;
type Secrets = Extract<RunnerRequest, { method: 'secrets' }>;
type Hello = Extract<RunnerRequest, { method: 'hello' }>;

/** Of a payload that was verified when it came in: what is asked of it here. */
const ExpectingPayload = z.object({ expect: z.record(z.string(), z.string()).optional() });

/** What a runner learns of the node it works for. */
export interface NodeSelf {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly realms: readonly string[];
}

interface ClaimsDeps {
  readonly journal: Journal;
  readonly reconciler: Pick<Reconciler, 'makeWay' | 'leaveAlone'>;
  readonly secrets: SecretFiles;
  readonly revocations: Pick<Revocations, 'checkMayAppend' | 'reasonOf'>;
  readonly dispatcher: Pick<Dispatcher, 'wakeAt' | 'kick' | 'isHeld'>;
  readonly notify: (runner: string, notice: SupervisorNotice) => void;
  readonly bootId: string;
  /** Throws `E_UNAVAILABLE` before the node has enrolled. */
  readonly self: () => NodeSelf;
  /** The newest chain this node knows, genesis first. */
  readonly authority: () => readonly Envelope[];
  readonly log: Logger;
}

/** What runners may do with runs: take the epoch that a job names, and append as its owner. */
export class RunClaims {
  readonly #deps: ClaimsDeps;

  constructor(deps: ClaimsDeps) {
    this.#deps = deps;
  }

  /**
   * Throws `E_STALE_EPOCH` when something the runner holds was given to another. What it was told of a run while
   * it was away is said again.
   */
  async reattach(runner: string, holding: Hello['holding']): Promise<void> {
    const { journal, bootId, revocations, notify, log } = this.#deps;
    for (const { run, epoch } of holding) {
      const entry = await journal.reattach(run, { runner, epoch, bootId });
      log.info({ runner, run, epoch }, 'runner came back with its run');
      const reason = revocations.reasonOf(run);
      if (reason !== undefined)
        notify(runner, { notice: 'refuse', run, problem: toProblem(reason) });
      if (entry.cancelRequestedAt !== null) notify(runner, { notice: 'cancel', run });
    }
  }

  /**
   * Throws `E_STALE_EPOCH` for a job that is stale or was never ours, `E_UNAVAILABLE` while what the run had made is
   * still being made again: it gets a job when that is done. After these the run is not this runner's.
   */
  async claim(runner: string, { run, epoch }: Claim): Promise<ClaimAnswer> {
    const { journal, dispatcher, bootId, log } = this.#deps;
    const node = this.#deps.self();
    if (dispatcher.isHeld(run)) {
      throw new HyphaError('E_UNAVAILABLE', `${run} waits for its resources to be restored`);
    }
    const entry = await journal
      .claim(run, { runner, epoch, bootId })
      .catch(async (err: unknown) => {
        const newest = (await journal.runs.findRun(run))?.epoch ?? 0;
        const fields = { runner, run, epoch, newest, err };
        // Left over from a runner that died, or handed out again because its lock was not renewed in time.
        if (epoch <= newest) log.info(fields, 'stale queue job refused');
        else log.error({ ...fields, alarm: true }, 'queue job refused');
        throw err;
      });
    try {
      return await this.#answer(entry, node);
    } catch (error) {
      if (isHyphaError(error) && CLAIM_REFUSALS.includes(error.code))
        await this.#takeBack(runner, { run, epoch });
      throw error;
    }
  }

  /** The runner is going to take the run for nobody's. Throws `E_INTERNAL`, over which it ends instead. */
  async #takeBack(runner: string, { run, epoch }: Pick<RunEntry, 'run' | 'epoch'>): Promise<void> {
    const { journal, log } = this.#deps;
    try {
      await journal.unclaim(run, { runner, epoch });
      log.warn({ runner, run, epoch }, 'claim taken back');
    } catch (cause) {
      throw new HyphaError('E_INTERNAL', `cannot take back the claim of ${run}`, { cause });
    }
  }

  async #answer(entry: RunEntry, node: NodeSelf): Promise<ClaimAnswer> {
    const { journal, reconciler, bootId } = this.#deps;
    const { run, epoch } = entry;
    await reconciler.makeWay(entry);
    const [envelope, events, secrets] = await Promise.all([
      journal.runs.readEnvelope(run),
      journal.runs.readAllEvents(run),
      journal.secrets.readGiven(run),
    ]);
    const records = journal.records.listRecords(entry);
    return {
      run,
      epoch,
      envelope,
      authority: [...this.#deps.authority()],
      node: {
        ...{ id: node.id, name: node.name },
        labels: { ...node.labels },
        realms: [...node.realms],
      },
      bootId,
      events,
      committed: records.filter(({ status }) => status === 'committed').map(asDesired),
      remains: [
        ...records.filter(({ status }) => status === 'retained'),
        ...journal.records.listProvisional(entry).filter((step) => step.run !== run),
      ].map(asDesired),
      secrets,
      // As it is now: it may have been cancelled while this was read.
      isCancelled: (journal.findUnfinished(run)?.cancelRequestedAt ?? null) !== null,
      expectedPlan: await this.#findExpected(envelope, node.id),
    };
  }

  /** The plan the operator saw: only to be shown, so that one that is gone or unreadable is none. */
  async #findExpected(envelope: Envelope, node: string): Promise<PlanDocument | null> {
    const payload = ExpectingPayload.parse(
      JSON.parse(new TextDecoder().decode(fromBase64(envelope.payload))),
    );
    const hash = payload.expect?.[node];
    if (hash === undefined) return null;
    return (await this.#deps.journal.runs.findPlan(hash)) ?? null;
  }

  /**
   * Takes back a run that only waits. Throws `E_STALE_EPOCH` for anybody but its owner, `E_CONFLICT` for a run that
   * is not running.
   */
  async park(
    runner: string,
    { run, epoch, after, wakeAtMs }: Park,
  ): Promise<Record<string, never>> {
    const { journal, dispatcher } = this.#deps;
    const author = { by: 'runner' as const, runner, epoch, after };
    const { wakeAt } = await journal.park(run, author, wakeAtMs);
    if (wakeAt === null) dispatcher.kick();
    else dispatcher.wakeAt(wakeAt);
    return {};
  }

  /** Throws `E_STALE_EPOCH` for anybody but the owner of `run`, `E_NOT_FOUND`, `E_TOO_LATE`. */
  async readKept(
    runner: string,
    { run, epoch, target }: ReadKept,
  ): Promise<{ readonly events: readonly JournalEvent[] }> {
    const entry = this.#demandOwner(runner, { run, epoch });
    return { events: await this.#deps.journal.runs.readKept(entry, target) };
  }

  /**
   * Files with values of the run's deployment, for whoever owns the run. Throws `E_STALE_EPOCH` for anybody else.
   */
  async provideSecrets(
    runner: string,
    { run, epoch, secrets }: Secrets,
  ): Promise<{ readonly files: Record<string, string> }> {
    const entry = this.#demandOwner(runner, { run, epoch });
    const signal = AbortSignal.timeout(LIMITS.provideMsMax);
    const files = await this.#deps.secrets.provide(entry, secrets, signal);
    return { files: Object.fromEntries(files) };
  }

  /** Durable when it resolves. Throws what the authority took back when it would be a further step. */
  async append(
    runner: string,
    { run, epoch, after, bodies }: Append,
  ): Promise<{ readonly seq: number }> {
    const { journal, reconciler } = this.#deps;
    const known = journal.findUnfinished(run);
    this.#deps.revocations.checkMayAppend(run, bodies);
    const isOwner = known?.holder === runner && known.epoch === epoch;
    for (const body of bodies) {
      if (body.type === 'finished' && body.state === 'succeeded') {
        throw new HyphaError('E_FORBIDDEN', `only the supervisor ends ${run} as succeeded`);
      }
      // Before the intent is durable the reconciler has let go: no two ever work on one resource.
      if (isOwner && known.mode !== 'plan' && body.type === 'step-intent' && body.rid !== null) {
        await reconciler.leaveAlone(body.rid, run);
      }
    }
    const author = { by: 'runner' as const, runner, epoch, after };
    const events = await journal.append(run, author, bodies);
    return { seq: events.at(-1)?.seq ?? after };
  }

  #demandOwner(runner: string, { run, epoch }: { run: string; epoch: number }): RunEntry {
    const entry = this.#deps.journal.findUnfinished(run);
    if (entry?.holder === runner && entry.epoch === epoch) return entry;
    throw new HyphaError('E_STALE_EPOCH', `${runner} does not own ${run} in epoch ${epoch}`);
  }
}

function asDesired({ rid, kind, name, spec, specHash }: DesiredResource): DesiredResource {
  return { rid, kind, name, spec, specHash };
}
