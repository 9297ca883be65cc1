/** A real journal with real records, and what works on it, without processes. Tests only. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DesiredResource } from '@hypha/protocol';
import { createLogger, type Logger } from '@hypha/service';
import {
  admissionOf,
  committed,
  desiredOf,
  finished,
  intent,
  JournalFixture,
  result,
  started,
} from '../../../journal/src/testing/journal-fixture.ts';
import { systemClock } from '../clock.ts';
import { Reconciler } from '../reconciler.ts';
import { CountedSals } from './counted-sals.ts';

export { admissionOf, committed, desiredOf, finished, intent, result, started };

export const silentLog: Logger = createLogger({ name: 'test', level: 'silent' });

export class JournalWorld implements AsyncDisposable {
  readonly fixture: JournalFixture;
  readonly sals: CountedSals;
  reconciler: Reconciler;
  readonly #folder: string;
  #isStarted = false;

  private constructor(fixture: JournalFixture, folder: string) {
    this.fixture = fixture;
    this.#folder = folder;
    this.sals = new CountedSals(folder);
    this.reconciler = this.#newReconciler();
  }

  static async open(): Promise<JournalWorld> {
    const folder = await mkdtemp(join(tmpdir(), 'hypha-world-'));
    const fixture = new JournalFixture();
    await fixture.create();
    return new JournalWorld(fixture, folder);
  }

  get journal() {
    return this.fixture.journal;
  }

  async startReconciler(): Promise<void> {
    this.#isStarted = true;
    await this.reconciler.start();
  }

  /** A run that declared and committed these; whether it made them is up to the test. */
  async commit(desired: readonly DesiredResource[], change = {}): Promise<string> {
    const run = await this.begin(desired, change);
    await this.fixture.append(run, [committed(...desired)]);
    return run;
  }

  /** A run that is under way, with settled steps for these. */
  async begin(desired: readonly DesiredResource[], change = {}): Promise<string> {
    const steps = desired.flatMap((each, index) => [intent(index + 1, each), result(index + 1)]);
    return (await this.fixture.start(change, ...steps)).run;
  }

  async succeed(run: string): Promise<void> {
    await this.fixture.succeed(run);
  }

  /** As after a crash of this process. */
  async restart(): Promise<void> {
    await this.#stop();
    await this.fixture.reopen();
    this.reconciler = this.#newReconciler();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
    await this.fixture[Symbol.asyncDispose]();
    await rm(this.#folder, { recursive: true });
  }

  async #stop(): Promise<void> {
    if (this.#isStarted) await this.reconciler.stop();
    this.#isStarted = false;
  }

  #newReconciler(): Reconciler {
    return new Reconciler({
      journal: this.journal,
      sals: this.sals.sals(),
      log: silentLog,
      clock: systemClock,
      pace: {
        ...{ observeMs: 50, settleMs: 1_000, settleRetryMs: 50 },
        ...{ repairMsMin: 20, repairMsMax: 100 },
      },
    });
  }
}
