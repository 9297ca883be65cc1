import {
  type BodyOf,
  EMPTY_RUN_FOLD,
  foldRunEvent,
  GENESIS_HASH,
  HyphaError,
  isTerminal,
  type JournalBody,
  type JournalEvent,
  LIMITS,
  mayFollow,
  type RunFold,
  RunId,
  type RunState,
  sealEvent,
  utf8,
  type Verifier,
} from '@hypha/protocol';
import { z } from 'zod';
import { JOURNAL_LIMITS } from './journal-limits.ts';

/** A step of another run that a step of this one undoes. */
export const UndoneStep = z.object({ run: RunId, step: z.int().min(1) });
export type UndoneStep = z.infer<typeof UndoneStep>;

/** The engine's verb that does so, and what it answers once nothing is left. */
const UNDO_VERB = 'run.undo';
const UndoneResult = z.object({ leftover: z.null() });

const ASCII = /^[ -~]*$/;

/** `intended`: no outcome yet. `settled`: has one. `undoing`, `undone`: of a run that unwinds. */
type StepState = 'intended' | 'settled' | 'undoing' | 'undone';

export interface BuiltEvent {
  readonly event: JournalEvent;
  /** The event as JSON text: what is stored and served. */
  readonly text: string;
}

/**
 * The newest end of one run's journal: what has to be known to append to it. Decides which event may follow
 * which (design §10). Changed in place; one that threw is thrown away and read again from the store, so
 * a refused append leaves no trace.
 */
export class RunHead {
  readonly run: string;
  readonly #verifier: Verifier;
  // step → how far it is
  readonly #steps = new Map<number, StepState>();
  // step → what it undoes in another run
  readonly #undoes = new Map<number, UndoneStep>();
  #seq = 0;
  #hash = GENESIS_HASH;
  #fold: RunFold = EMPTY_RUN_FOLD;
  #startedEpoch = 0;
  #lastLine = 0;
  #bytes = 0;
  #outputSha256: string | null = null;

  constructor(verifier: Verifier, run: string) {
    this.#verifier = verifier;
    this.run = run;
  }

  /** Replays stored events. Throws `E_INTERNAL` when they are not a whole, legal chain. */
  static fromEvents(verifier: Verifier, run: string, events: readonly JournalEvent[]): RunHead {
    const head = new RunHead(verifier, run);
    for (const event of events) {
      const again = head.append(event.body, { epoch: event.epoch, at: event.at });
      if (again.event.hash !== event.hash || again.event.seq !== event.seq) {
        throw new HyphaError('E_INTERNAL', `journal of ${run} is broken at event ${event.seq}`, {
          hint: 'the node store was damaged; restore it or submit the work again',
        });
      }
    }
    return head;
  }

  get seq(): number {
    return this.#seq;
  }
  get hash(): string {
    return this.#hash;
  }
  get state(): RunState {
    return this.#fold.state;
  }
  /** What the journal so far says about the run. */
  get fold(): RunFold {
    return this.#fold;
  }
  get outputSha256(): string | null {
    return this.#outputSha256;
  }

  /** What a step has undone in another run, once its result says so. */
  findUndone(body: BodyOf<'step-result'>): UndoneStep | undefined {
    return UndoneResult.safeParse(body.result).success ? this.#undoes.get(body.step) : undefined;
  }

  /** Throws `E_CONFLICT` for an event that may not follow, `E_SIZE` and `E_OUTPUT` for one too large. */
  append(body: JournalBody, stamp: { epoch: number; at: number }): BuiltEvent {
    this.#check(body, stamp.epoch);
    const unsigned = {
      run: this.run,
      seq: this.#seq + 1,
      epoch: stamp.epoch,
      at: stamp.at,
      prev: this.#hash,
      body,
    };
    const built = sealEvent(this.#verifier, unsigned);
    this.#checkSize(body, sizeOf(built.text));
    this.#advance(body, built.event);
    return built;
  }

  #check(body: JournalBody, epoch: number): void {
    if (body.type === 'accepted') {
      if (this.#seq !== 0) this.#refuse(body, 'the run is accepted already');
      return;
    }
    if (this.#seq === 0) this.#refuse(body, 'nothing comes before accepted');
    if (isTerminal(this.state)) this.#refuse(body, `the run is ${this.state}`);
    switch (body.type) {
      case 'started':
        if (this.state === 'committed') this.#refuse(body, 'the run is committed');
        if (epoch <= this.#startedEpoch) this.#refuse(body, `epoch ${epoch} has started`);
        return;
      case 'step-intent':
        this.#demandState(body, 'running');
        if (this.#steps.has(body.step)) this.#refuse(body, `step ${body.step} has an intent`);
        return;
      case 'step-result':
      case 'step-error':
        this.#demandState(body, 'running');
        this.#demandStep(body, body.step, 'intended');
        return;
      case 'committed':
        this.#demandState(body, 'running');
        if ([...this.#steps.values()].includes('intended'))
          this.#refuse(body, 'a step has no outcome');
        return;
      case 'undo-intent':
        this.#demandState(body, 'running', 'undoing');
        // Repeated after a crash between intent and result.
        this.#demandStep(body, body.step, 'intended', 'settled', 'undoing');
        return;
      case 'undo-result':
        this.#demandState(body, 'undoing');
        this.#demandStep(body, body.step, 'undoing');
        return;
      case 'log':
        this.#demandState(body, 'running');
        if (body.line !== this.#lastLine + 1)
          this.#refuse(body, `log line ${this.#lastLine} was the last`);
        return;
      case 'finished':
        if (!mayFollow(this.state, body.state)) this.#refuse(body, `the run is ${this.state}`);
        return;
      default:
        body satisfies never;
    }
  }

  #demandState(body: JournalBody, ...states: readonly RunState[]): void {
    if (!states.includes(this.state)) this.#refuse(body, `the run is ${this.state}`);
  }

  #demandStep(body: JournalBody, step: number, ...states: readonly StepState[]): void {
    const state = this.#steps.get(step);
    if (state === undefined || !states.includes(state)) {
      this.#refuse(body, `step ${step} is ${state ?? 'unknown'}`);
    }
  }

  #refuse(body: JournalBody, reason: string): never {
    throw new HyphaError('E_CONFLICT', `${body.type} may not follow in ${this.run}: ${reason}`, {
      where: { path: 'body.type' },
    });
  }

  /** What ends or unwinds a run always fits: only going on is bounded. */
  #checkSize(body: JournalBody, bytes: number): void {
    if (body.type === 'committed' && bytes > JOURNAL_LIMITS.committedBytesMax) {
      throw new HyphaError('E_OUTPUT', `output of ${this.run} takes ${bytes} bytes`, {
        hint: `a run can return at most ${JOURNAL_LIMITS.committedBytesMax} bytes`,
      });
    }
    if (body.type !== 'committed' && bytes > LIMITS.journalEventBytesMax) {
      throw new HyphaError('E_SIZE', `${body.type} of ${this.run} takes ${bytes} bytes`, {
        hint: `a journal event holds at most ${LIMITS.journalEventBytesMax} bytes`,
      });
    }
    const goesOn = body.type === 'step-intent' || body.type === 'log';
    if (goesOn && this.#bytes + bytes > JOURNAL_LIMITS.runBytesMax) {
      throw new HyphaError('E_OUTPUT', `journal of ${this.run} is full`, {
        hint: `a run may journal at most ${JOURNAL_LIMITS.runBytesMax} bytes`,
      });
    }
    this.#bytes += bytes;
  }

  #advance(body: JournalBody, event: JournalEvent): void {
    this.#seq = event.seq;
    this.#hash = event.hash;
    this.#fold = foldRunEvent(this.#fold, event);
    if (body.type === 'started') this.#startedEpoch = event.epoch;
    if (body.type === 'committed') this.#outputSha256 = body.outputSha256;
    if (body.type === 'log') this.#lastLine = body.line;
    if (body.type === 'step-intent') this.#intend(body);
    if (body.type === 'step-result') this.#steps.set(body.step, 'settled');
    if (body.type === 'step-error') this.#steps.set(body.step, 'settled');
    if (body.type === 'undo-intent') this.#steps.set(body.step, 'undoing');
    if (body.type === 'undo-result') this.#steps.set(body.step, 'undone');
  }

  #intend({ step, verb, args }: BodyOf<'step-intent'>): void {
    this.#steps.set(step, 'intended');
    const undoes = verb === UNDO_VERB ? UndoneStep.safeParse(args).data : undefined;
    if (undoes !== undefined) this.#undoes.set(step, undoes);
  }
}

/** Bytes of a text: one is a character where all are ASCII, and counting needs no copy. */
function sizeOf(text: string): number {
  return ASCII.test(text) ? text.length : utf8(text).length;
}
