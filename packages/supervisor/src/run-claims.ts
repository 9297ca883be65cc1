import type { Journal } from '@hypha/journal';
import type { ClaimAnswer, RunnerRequest } from '@hypha/journal/client';
import { type Envelope, HyphaError } from '@hypha/protocol';
import type { SecretFiles } from '@hypha/sal';
import type { Logger } from '@hypha/service';
import type { Reconciler } from './reconciler.ts';
import type { Revocations } from './revocations.ts';
import { LIMITS } from './supervisor-limits.ts';

type Claim = Extract<RunnerRequest, { method: 'claim' }>;
type Append = Extract<RunnerRequest, { method: 'append' }>;
type Secrets = Extract<RunnerRequest, { method: 'secrets' }>;
type Hello = Extract<RunnerRequest, { method: 'hello' }>;

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
  readonly revocations: Pick<Revocations, 'checkMayAppend'>;
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

  /** Throws `E_STALE_EPOCH` when something the runner holds was given to another. */
  async reattach(runner: string, holding: Hello['holding']): Promise<void> {
    const { journal, bootId, log } = this.#deps;
    for (const { run, epoch } of holding) {
      await journal.reattach(run, { runner, epoch, bootId });
      log.info({ runner, run, epoch }, 'runner came back with its run');
    }
  }

  /** Throws `E_STALE_EPOCH` for a job that is stale or was never ours. */
  async claim(runner: string, { run, epoch }: Claim): Promise<ClaimAnswer> {
    const { journal, reconciler, bootId, log } = this.#deps;
    const node = this.#deps.self();
    const entry = await journal.claim(run, { runner, epoch, bootId }).catch((err: unknown) => {
      const newest = journal.findUnfinished(run)?.epoch ?? 0;
      const fields = { runner, run, epoch, newest, err };
      // Left over from a runner that died; anything else nobody here has queued.
      if (epoch < newest) log.info(fields, 'stale queue job refused');
      else log.error({ ...fields, alarm: true }, 'queue job refused');
      throw err;
    });
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
      committed: records
        .filter(({ status }) => status === 'committed')
        .map(({ rid, kind, name, spec, specHash }) => ({ rid, kind, name, spec, specHash })),
      secrets,
      isCancelled: false,
      expectedPlan: null,
    };
  }

  /**
   * Files with values of the run's deployment, for whoever owns the run. Throws `E_STALE_EPOCH` for anybody else.
   */
  async provideSecrets(
    runner: string,
    { run, epoch, secrets }: Secrets,
  ): Promise<{ readonly files: Record<string, string> }> {
    const entry = this.#deps.journal.findUnfinished(run);
    if (entry?.holder !== runner || entry.epoch !== epoch) {
      throw new HyphaError('E_STALE_EPOCH', `${runner} does not own ${run} in epoch ${epoch}`);
    }
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
      if (isOwner && body.type === 'step-intent' && body.rid !== null) {
        await reconciler.leaveAlone(body.rid, run);
      }
    }
    const author = { by: 'runner' as const, runner, epoch, after };
    const events = await journal.append(run, author, bodies);
    return { seq: events.at(-1)?.seq ?? after };
  }
}
