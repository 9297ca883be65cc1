import type { BodyOf, JournalEvent } from '@hypha/protocol';
import { bodiesOf, codeOf, type SimEnd, type SimRun } from './sim-run.ts';

/** A thing as it has to be; undefined where nobody can tell. Another object for every change of it. */
interface Held {
  readonly size: number | undefined;
  readonly mark: string | undefined;
}

/** A step of a run that may still be undone. `undefined` on either side: the thing is not there. */
interface DoneStep {
  readonly run: string;
  readonly step: number;
  readonly name: string;
  readonly verb: string;
  readonly isCreation: boolean;
  readonly isFailed: boolean;
  readonly was: Held | undefined;
  is: Held | undefined;
}

/** A thing as it is. */
interface Found {
  readonly name: string;
  readonly size: number;
  readonly mark: string;
  readonly whole: boolean;
  readonly up: boolean;
}

/**
 * What one deployment has to hold after each of its runs, by the rules of docs/durable-runs.md: told from what its
 * steps came to, and not from what the product says that it committed.
 */
export class SimDeployment {
  // name → size in the committed record
  #record = new Map<string, number>();
  readonly #things = new Map<string, Held>();
  // Of failed runs that were signed to be kept, oldest first
  #kept: DoneStep[] = [];
  // run that failed and was kept → whether a later one has committed
  readonly #keptRuns = new Map<string, 'open' | 'late'>();
  readonly #violate: (line: string) => void;

  constructor(violate: (line: string) => void) {
    this.#violate = violate;
  }

  /** Name → size in the committed record. */
  get record(): ReadonlyMap<string, number> {
    return this.#record;
  }

  /** What the next apply that declares nothing would remove. */
  get names(): ReadonlySet<string> {
    return new Set([...this.#record.keys(), ...this.#listKept()]);
  }

  /** The next run of the deployment has ended. */
  take(sent: SimRun, events: readonly JournalEvent[], end: SimEnd): void {
    const { mode, isKept, run } = sent;
    const [commit] = bodiesOf(events, 'committed');
    // What a plan has on record are predictions.
    const done = mode === 'plan' ? [] : this.#takeSteps(sent, events);
    this.#inspectUndo(sent, end);
    if (commit !== undefined) {
      this.#takeCommit(sent, events, { commit, done });
    } else if (isKept) {
      this.#kept.push(...done);
      if (end.state !== 'rejected') this.#keptRuns.set(run, 'open');
    } else {
      for (const { name, was } of done.toReversed()) this.#put(name, was);
    }
    this.#inspectLeftovers(end, commit === undefined && isKept ? done : []);
  }

  /** The things as they are in the end, when everything is settled. */
  inspect(found: readonly Found[]): void {
    const kept = this.#listKept();
    const held = new Map(found.map((thing) => [thing.name, thing]));
    for (const name of new Set([...this.#record.keys(), ...this.#things.keys(), ...held.keys()])) {
      const wanted = this.#things.get(name);
      const thing = held.get(name);
      const size = kept.has(name) ? (wanted?.size ?? 'any') : this.#record.get(name);
      const isThere = size !== undefined && (wanted !== undefined || !kept.has(name));
      if (size === 'any' && isThere) continue;
      if ((thing !== undefined) !== isThere || (isThere && thing?.size !== size)) {
        const wants = isThere ? `of size ${size}` : 'gone';
        this.#violate(`G5 ${name} is ${thing?.size ?? 'gone'} and has to be ${wants}`);
      }
      if (thing === undefined) continue;
      if (wanted?.mark !== undefined && thing.mark !== wanted.mark)
        this.#violate(`G5 ${name} is marked '${thing.mark}' and not '${wanted.mark}'`);
      if (!kept.has(name) && !(thing.whole && thing.up)) this.#violate(`G4 ${name} is not whole`);
    }
  }

  #takeSteps(sent: SimRun, events: readonly JournalEvent[]): DoneStep[] {
    const intents = new Map(bodiesOf(events, 'step-intent').map((body) => [body.step, body]));
    const done: DoneStep[] = [];
    for (const { body } of events) {
      if (body.type !== 'step-result' && body.type !== 'step-error') continue;
      const intent = intents.get(body.step);
      intents.delete(body.step);
      if (intent !== undefined) done.push(...this.#takeStep(sent, intent, body));
    }
    // What was under way when the run ended
    for (const intent of intents.values()) done.push(...this.#takeStep(sent, intent, undefined));
    return done;
  }

  #takeStep(
    { run, isKept }: SimRun,
    intent: BodyOf<'step-intent'>,
    outcome: BodyOf<'step-result'> | BodyOf<'step-error'> | undefined,
  ): DoneStep[] {
    const { verb, step, name, action } = intent;
    if (verb === 'run.undo') this.#undoKept(intent, outcome);
    const isEffect = intent.class === 'ensure' || intent.class === 'transition';
    if (name === null || !isEffect || action === 'no-op') return [];
    const isFailed = outcome?.type !== 'step-result';
    const was = this.#things.get(name);
    // A step that failed is undone before the script learns of it, unless what fails is to be kept.
    if (outcome?.type === 'step-error' && !isKept) return [];
    const is = isFailed ? { size: undefined, mark: undefined } : changed(was, intent);
    this.#put(name, is);
    return [{ run, step, name, verb, isCreation: action === 'create', isFailed, was, is }];
  }

  #undoKept({ args }: BodyOf<'step-intent'>, outcome: { readonly type: string } | undefined): void {
    const asked = args as { readonly run: string; readonly step: number };
    const isAsked = ({ run, step }: DoneStep) => run === asked.run && step === asked.step;
    const kept = this.#kept.find(isAsked);
    if (outcome?.type === 'step-error') return;
    if (kept === undefined) {
      if (outcome !== undefined) this.#violate(`G3 ${asked.run}/${asked.step} was undone again`);
      return;
    }
    const { name, was, isCreation } = kept;
    const isLast = this.#things.get(name) === kept.is;
    const unknown = { size: undefined, mark: undefined };
    if (outcome === undefined) {
      // It was cut, and may have happened. The next undo of it brings the same.
      this.#put(name, unknown);
      if (isLast) kept.is = unknown;
      return;
    }
    this.#kept = this.#kept.filter((each) => each !== kept);
    // Something else happened to it since: only what the step itself has made is known to be gone.
    this.#put(name, isLast ? was : isCreation ? undefined : unknown);
  }

  #takeCommit(
    { run, mode, isKept }: SimRun,
    events: readonly JournalEvent[],
    { commit, done }: { commit: BodyOf<'committed'>; done: readonly DoneStep[] },
  ): void {
    const sizes = commit.desired.map(({ name, spec }): [string, number] => {
      return [name, (spec as { readonly size: number }).size];
    });
    const isRevision = mode === 'apply' || mode === 'destroy';
    const wanted = isRevision ? this.#listDeclared(events) : new Map<string, number>();
    if (textOf(sizes) !== textOf(wanted))
      this.#violate(`G5 ${run} committed [${textOf(sizes)}] and not [${textOf(wanted)}]`);
    if (!isRevision) return;
    const declared = new Set(this.#namesOf(events, 'step-result'));
    for (const step of isKept ? done.toReversed() : []) {
      if (!step.isFailed || declared.has(step.name)) continue;
      const now = this.#things.get(step.name);
      this.#put(step.name, now === step.is ? step.was : { size: undefined, mark: undefined });
    }
    for (const name of [...this.#things.keys()]) if (!wanted.has(name)) this.#put(name, undefined);
    for (const [name, size] of wanted) {
      const now = this.#things.get(name);
      this.#put(name, { size, mark: now === undefined ? '' : now.mark });
    }
    this.#record = wanted;
    this.#kept = [];
    for (const kept of this.#keptRuns.keys()) this.#keptRuns.set(kept, 'late');
  }

  /** What the script declared; and what it tried to in vain and the deployment had, as it had it. */
  #listDeclared(events: readonly JournalEvent[]): Map<string, number> {
    const wanted = new Map<string, number>();
    for (const name of this.#namesOf(events, 'step-error')) {
      const size = this.#record.get(name);
      if (size !== undefined) wanted.set(name, size);
    }
    const intents = new Map(bodiesOf(events, 'step-intent').map((body) => [body.step, body]));
    for (const { step } of bodiesOf(events, 'step-result')) {
      const intent = intents.get(step);
      if (intent?.verb === 'thing.ensure' && intent.name !== null)
        wanted.set(intent.name, (intent.args as { readonly size: number }).size);
    }
    return wanted;
  }

  /** Of the declarations that came to this. */
  #namesOf(events: readonly JournalEvent[], type: 'step-result' | 'step-error'): string[] {
    const steps = new Set(bodiesOf(events, type).map(({ step }) => step));
    return bodiesOf(events, 'step-intent').flatMap(({ step, verb, name }) =>
      verb === 'thing.ensure' && name !== null && steps.has(step) ? [name] : [],
    );
  }

  /** A run that is kept can be undone until a later one has committed, and nothing else can. */
  #inspectUndo({ ops }: SimRun, end: SimEnd): void {
    for (const op of ops) {
      if (op.op !== 'undo') continue;
      const state = this.#keptRuns.get(op.run);
      const wanted = state === 'open' ? '' : state === 'late' ? 'E_TOO_LATE' : 'E_NOT_FOUND';
      const code = codeOf(end);
      const isAnswered = ['', 'E_TOO_LATE', 'E_NOT_FOUND'].includes(code);
      if (isAnswered && code !== wanted)
        this.#violate(`undo of ${op.run} ended '${code}' and not '${wanted}'`);
      if (code === '' && this.#kept.some(({ run }) => run === op.run))
        this.#violate(`G5 something of ${op.run} is still kept`);
    }
  }

  #inspectLeftovers({ leftovers }: SimEnd, kept: readonly DoneStep[]): void {
    const left = leftovers.filter(({ reason }) => reason.startsWith('kept: '));
    const names = new Set(left.map(({ name }) => name));
    const wanted = new Set(kept.map(({ name }) => name));
    if (names.symmetricDifference(wanted).size > 0)
      this.#violate(`G5 it says that it keeps [${[...names]}] and not [${[...wanted]}]`);
    const others = leftovers.filter(({ reason }) => !reason.startsWith('kept: '));
    if (others.some(({ reason }) => !reason.includes('is not undone')))
      this.#violate(`G5 left over: ${JSON.stringify(others)}`);
  }

  #listKept(): Set<string> {
    const declarations = this.#kept.filter(({ verb }) => verb === 'thing.ensure');
    return new Set(declarations.map(({ name }) => name));
  }

  #put(name: string, held: Held | undefined): void {
    if (held === undefined) this.#things.delete(name);
    else this.#things.set(name, held);
  }
}

function changed(was: Held | undefined, { verb, args }: BodyOf<'step-intent'>): Held {
  if (verb === 'thing.mark') {
    return { size: was?.size, mark: (args as { readonly mark: string }).mark };
  }
  const mark = was === undefined ? '' : was.mark;
  return { size: (args as { readonly size: number }).size, mark };
}

function textOf(sizes: Iterable<readonly [string, number]>): string {
  return [...sizes]
    .map(([name, size]) => `${name}:${size}`)
    .sort()
    .join(' ');
}
