import { type ErrorCode, HyphaError, isHyphaError, type Json } from '@hypha/protocol';
import { SecretRef } from '@hypha/sal';
import type { RunJournal } from './ports.ts';
import { RunRecord, type StepIntent } from './run-record.ts';
import { EngineHalt } from './saga-error.ts';
import { stepsToUndo } from './unwind.ts';

/** The journal is lost to this process; anything else is an answer about the run. */
const LOST: readonly ErrorCode[] = ['E_STALE_EPOCH', 'E_UNAVAILABLE'];

/** A failed run that was signed to be kept, as a task that undoes it sees it. */
export interface KeptRun {
  readonly run: string;
  /** What is left to undo, newest first: the reverse of the order the steps ended in. */
  readonly steps: readonly StepIntent[];
  /** Name → version of the secrets its steps were made with. */
  readonly secrets: Readonly<Record<string, string>>;
}

/** Reads kept runs for one epoch of a task; nobody else changes them meanwhile. */
export class KeptRuns {
  readonly #journal: Pick<RunJournal, 'readKept'>;
  #last: KeptRun | undefined;

  constructor(journal: Pick<RunJournal, 'readKept'>) {
    this.#journal = journal;
  }

  /** Throws `E_NOT_FOUND` or `E_TOO_LATE`, and `EngineHalt` when the journal is lost. */
  async read(run: string): Promise<KeptRun> {
    if (this.#last?.run === run) return this.#last;
    const record = new RunRecord(await this.#readEvents(run));
    const secrets: Record<string, string> = {};
    for (const { desired } of record.intents.values()) {
      if (desired !== null) collectSecrets(desired.spec, secrets);
    }
    this.#last = { run, steps: stepsToUndo(record), secrets };
    return this.#last;
  }

  async #readEvents(run: string) {
    try {
      return await this.#journal.readKept(run);
    } catch (error) {
      throw LOST.some((code) => isHyphaError(error, code)) ? new EngineHalt(error) : error;
    }
  }
}

/** Adds every secret that a declared spec refers to. */
function collectSecrets(spec: Json, secrets: Record<string, string>): void {
  if (typeof spec !== 'object' || spec === null) return;
  const reference = SecretRef.safeParse(spec);
  if (reference.success) secrets[reference.data.secret] = reference.data.version;
  else for (const item of Object.values(spec)) collectSecrets(item as Json, secrets);
}

/** The step of a kept run that is to be undone. Throws `E_NOT_FOUND`. */
export function getKeptStep({ run, steps }: KeptRun, step: number): StepIntent {
  const found = steps.find((intent) => intent.step === step);
  if (found !== undefined) return found;
  throw new HyphaError('E_NOT_FOUND', `${run} has no step ${step} that can be undone`);
}
