import {
  type BodyOf,
  type DesiredResource,
  type JournalBody,
  type JournalEvent,
  type Json,
  Problem,
  type Rid,
} from '@hypha/protocol';

export type StepIntent = BodyOf<'step-intent'>;
export type StepOutcome = BodyOf<'step-result'> | BodyOf<'step-error'>;

/** Action of the intent of a call that was refused before it could have any effect. */
export const REFUSED = 'refuse';

/**
 * A run's journal folded into what the engine asks of it. Holds what waits for its append too: the
 * engine's own past, durable or not, is what a fresh guest has to be led through.
 */
export class RunRecord {
  /** The first start: its clock is what the script sees and what the deadline counts from. */
  started: BodyOf<'started'> | undefined;
  /** Wall clock of the node at the first start, epoch milliseconds. */
  startedAtMs: number | undefined;
  committed: BodyOf<'committed'> | undefined;
  finished: BodyOf<'finished'> | undefined;
  // rid → what this run ensured, as last declared, in the order first declared
  readonly declared = new Map<Rid, DesiredResource>();
  // step → its intent, in the order they were recorded
  readonly intents = new Map<number, StepIntent>();
  // step → its outcome
  readonly outcomes = new Map<number, StepOutcome>();
  /** The same in the order they were recorded, which is the order the script gets them in. */
  readonly completions: StepOutcome[] = [];
  readonly undoIntents = new Set<number>();
  // step → null when undone, otherwise why something is left over
  readonly undoResults = new Map<number, string | null>();
  /** Why the run is being undone, from its first `undo-intent`. */
  undoProblem: Json | undefined;
  /** How long fetching took in all, milliseconds. */
  preparedMs = 0;
  logLines = 0;
  /** The latest time that the script was or will be told, epoch milliseconds. */
  nowMs = 0;

  constructor(recorded: readonly JournalEvent[]) {
    for (const event of recorded) {
      this.add(event.body);
      if (event.body.type === 'started') this.startedAtMs ??= event.at;
    }
  }

  add(body: JournalBody): void {
    switch (body.type) {
      case 'accepted':
        return;
      case 'started':
        this.started ??= body;
        this.nowMs = Math.max(this.nowMs, this.started.nowMs);
        return;
      case 'step-intent':
        this.intents.set(body.step, body);
        this.preparedMs += body.preparedMs ?? 0;
        return;
      case 'step-result': {
        const desired = this.intents.get(body.step)?.desired ?? null;
        if (desired !== null) this.declared.set(desired.rid, desired);
        this.#addOutcome(body);
        return;
      }
      case 'step-error':
        this.#addOutcome(body);
        return;
      case 'committed':
        this.committed = body;
        return;
      case 'undo-intent': {
        this.undoIntents.add(body.step);
        if (Problem.safeParse(body.problem).success) this.undoProblem ??= body.problem;
        return;
      }
      case 'undo-result':
        this.undoResults.set(body.step, body.leftover);
        return;
      case 'log':
        this.logLines = Math.max(this.logLines, body.line);
        return;
      case 'finished':
        this.finished = body;
        return;
      default:
        body satisfies never;
    }
  }

  #addOutcome(outcome: StepOutcome): void {
    this.outcomes.set(outcome.step, outcome);
    this.completions.push(outcome);
    this.nowMs = Math.max(this.nowMs, outcome.nowMs ?? 0);
  }

  /** Steps that were begun and have no outcome, in the order of the steps. */
  get openSteps(): number[] {
    const open = [...this.intents.keys()].filter((step) => !this.outcomes.has(step));
    return open.sort((left, right) => left - right);
  }

  /** True for a step that can have changed the world in a way that can be undone. */
  static isUndoable(intent: StepIntent): boolean {
    const isEffect = intent.class === 'ensure' || intent.class === 'transition';
    return isEffect && intent.action !== 'no-op';
  }

  /** Unwinding has begun: the run goes no way but back. */
  get isUndoing(): boolean {
    return this.undoIntents.size > 0;
  }
}
