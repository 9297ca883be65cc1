import type { Journal, RunEntry } from '@hypha/journal';
import {
  type Authority,
  type HyphaError,
  isHyphaError,
  type JournalBody,
  type Verifier,
  verifyScript,
} from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { Membership } from './admission.ts';
import { recordedProblem } from './recorded-problem.ts';

interface RevocationsDeps {
  readonly journal: Journal;
  readonly verifier: Verifier;
  /** Throws `E_UNAVAILABLE` before the node has enrolled. */
  readonly membership: () => Membership;
  readonly authority: () => Authority;
  /** Tells a runner that owns a run why it goes no further. */
  readonly notify: (runner: string, run: string, reason: HyphaError) => void;
  /** A run that nobody owns has to be undone, and waits for nothing else. */
  readonly kick: () => void;
  readonly log: Logger;
}

/**
 * Acts on what the authority takes back, at the moment this node sees it (design §8): a run whose envelope does
 * not verify any more ends as rejected when nobody has begun it; otherwise its runner stops and undoes, and
 * from then on no further step of it is journaled. What was committed stays.
 */
export class Revocations {
  readonly #deps: RevocationsDeps;
  // run → why it goes no further
  readonly #refused = new Map<string, HyphaError>();
  #passes: Promise<void> = Promise.resolve();
  #isWaiting = false;

  constructor(deps: RevocationsDeps) {
    this.#deps = deps;
  }

  /** The authority may have changed since a run was judged. One more look soon, which serves all who ask. */
  kick(): void {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    this.#passes = this.#passes.then(() => {
      this.#isWaiting = false;
      return this.#pass();
    });
  }

  /** Resolves when every look asked for is done. */
  async idle(): Promise<void> {
    await this.#passes;
  }

  /** Why the run goes no further; undefined when nothing is known against it. */
  reasonOf(run: string): HyphaError | undefined {
    return this.#refused.get(run);
  }

  /** Throws why the run goes no further when an append would take it there. Undoing needs no key. */
  checkMayAppend(run: string, bodies: readonly JournalBody[]): void {
    const reason = this.#refused.get(run);
    if (reason === undefined) return;
    if (bodies.some(({ type }) => type === 'step-intent' || type === 'committed')) throw reason;
  }

  /** Never rejects. */
  async #pass(): Promise<void> {
    const { journal, log } = this.#deps;
    const runs = journal.listLanes().flatMap((lane) => lane.runs.map(({ run }) => run));
    const unfinished = new Set(runs);
    for (const run of this.#refused.keys()) if (!unfinished.has(run)) this.#refused.delete(run);
    for (const run of runs) {
      try {
        await this.#judge(run);
      } catch (err) {
        // The runner that takes the run verifies it once more.
        log.error({ err, run }, 'run not judged by the new authority');
      }
    }
  }

  async #judge(run: string): Promise<void> {
    const reason = await this.#findReason(run);
    const entry = this.#deps.journal.findUnfinished(run);
    if (reason === undefined || entry === undefined || entry.state === 'committed') return;
    this.#refused.set(run, reason);
    if (await this.#reject(entry, reason)) return;
    // As it is now: a runner may have claimed it meanwhile.
    const holder = this.#deps.journal.findUnfinished(run)?.holder ?? null;
    this.#deps.log.warn({ run, runner: holder, err: reason, alarm: true }, 'run stopped');
    if (holder === null) this.#deps.kick();
    else this.#deps.notify(holder, run, reason);
  }

  async #findReason(run: string): Promise<HyphaError | undefined> {
    const { journal, verifier, authority, membership } = this.#deps;
    const envelope = await journal.runs.readEnvelope(run);
    try {
      verifyScript(verifier, {
        ...{ envelope, authority: authority(), node: membership(), profile: 'execute' },
        // This profile reads no clock.
        nowSeconds: 0,
      });
      return undefined;
    } catch (error) {
      if (!isHyphaError(error) || error.code === 'E_UNAVAILABLE') throw error;
      return error;
    }
  }

  /** A queued run does not wait for a runner to learn this. */
  async #reject({ run }: RunEntry, reason: HyphaError): Promise<boolean> {
    const isRejected = await this.#deps.journal.finishUnclaimed(run, {
      type: 'finished',
      state: 'rejected',
      problem: recordedProblem(reason),
      undone: 0,
      leftovers: [],
    });
    if (isRejected) this.#deps.log.warn({ run, err: reason, alarm: true }, 'queued run rejected');
    return isRejected;
  }
}
