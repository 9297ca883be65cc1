/** A node's things, made in two halves each, by processes that may die between them. */
import { HyphaError, type Json, type Rid } from '@hypha/protocol';
import {
  composeSals,
  defineVerb,
  labelForRecord,
  labelForStep,
  labelText,
  NO_USE,
  onResource,
  parseArguments,
  ResourceLabel,
  type ResourceRecord,
  type Sals,
  type SalVerb,
  type StepContext,
  specHashOf,
} from '@hypha/sal';
import type { SeededRandom } from '@hypha/testkit';
import { z } from 'zod';
import type { SimClock } from './sim-clock.ts';

const Thing = ResourceLabel.extend({
  size: z.int(),
  mark: z.string(),
  /** False while it is being made. */
  whole: z.boolean(),
  /** False after a reboot, until it is brought up again. */
  up: z.boolean(),
});
type Thing = z.infer<typeof Thing>;

const EnsureArgs = z.strictObject({
  size: z.int().min(1),
  fails: z.enum(['never', 'once', 'always']),
});
const MarkArgs = z.strictObject({ mark: z.string() });
const RunArgs = z.strictObject({ idempotent: z.boolean(), mayBeDown: z.boolean() });
const Before = z.strictObject({ thing: Thing.nullable() });

/** Longest that one half of an effect takes, milliseconds. */
const HALF_MS_MAX = 40;
/** Of calls that meet a machine that is busy. */
const BUSY_SHARE = 0.03;

/** One change of a thing. */
export interface Touch {
  readonly atMs: number;
  readonly deployment: string;
  /** `<run>/<step>` it was done or undone for; null for what no run did. */
  readonly op: string | null;
}

/** Whose hands an effect is in: once it is dead, what it was about to do never happens. */
export interface Actor {
  readonly name: string;
  /** Never resolves for the dead, and for the stopped only when they go on. */
  pass(): Promise<void>;
}

export class SimWorld {
  readonly things = new Map<Rid, Thing>();
  /** Everything that must never happen. */
  readonly violations: string[] = [];
  readonly touches: Touch[] = [];
  // op → how often its call that may happen once has happened
  readonly #runs = new Map<string, number>();
  // ops that failed once already
  readonly #failed = new Set<string>();
  // run and rid of declarations that failed for good
  readonly #inVain = new Set<string>();
  // rid → who is at work on it
  readonly #hands = new Map<Rid, string>();
  readonly #clock: SimClock;
  readonly #random: SeededRandom;

  constructor(clock: SimClock, random: SeededRandom) {
    this.#clock = clock;
    this.#random = random;
  }

  /** The power is cut and comes back: things are there, and down. */
  reboot(): void {
    this.#hands.clear();
    for (const [rid, thing] of this.things) {
      this.things.set(rid, { ...thing, up: false });
      this.#touch(thing, null);
    }
  }

  /** All that this actor had begun has ended, as it stands. */
  dropHands(actor: string): void {
    for (const [rid, who] of this.#hands) if (who === actor) this.#hands.delete(rid);
  }

  /** The SALs as this process has them open. */
  sals(actor: Actor): Sals {
    return composeSals([
      {
        kind: 'thing',
        status: { state: 'simulated', driver: 'simulation' },
        verbs: [this.#ensure(actor), this.#mark(actor), this.#run(actor), this.#peek(actor)],
        resource: {
          kind: 'thing',
          observe: async (record) => this.#observe(record),
          converge: (record, signal) => this.#converge(actor, record, signal),
          remove: async (record, { signal }) => {
            await this.#half(actor, record.rid, signal, () => {
              this.things.delete(record.rid);
              this.#touch(record, null);
            });
          },
          list: async () =>
            [...this.things.values()].map((thing) => ({ rid: thing.rid, label: labelText(thing) })),
        },
      },
    ]);
  }

  #ensure(actor: Actor): SalVerb {
    return defineVerb<z.infer<typeof EnsureArgs>>({
      verb: 'thing.ensure',
      class: 'ensure',
      capability: 'thing',
      kind: 'thing',
      parse: (args) => parseArguments('thing.ensure', EnsureArgs, args),
      spec: ({ size }) => ({ spec: { size }, uses: { ...NO_USE, storageBytes: size } }),
      plan: async (context, { size }) => {
        await this.#look(actor);
        const { rid } = onResource(context);
        const planned = context.planned?.find(rid);
        if (planned !== undefined) {
          const isSame = planned.specHash === specHashOf({ size });
          return { action: isSame ? 'no-op' : 'update', before: null };
        }
        const thing = this.things.get(rid) ?? null;
        const action =
          thing === null
            ? 'create'
            : thing.size === size && thing.whole && thing.up
              ? 'no-op'
              : 'update';
        return { action, before: { thing } };
      },
      predict: async (context) => {
        return { $rid: onResource(context).rid, kind: 'thing', name: context.name };
      },
      apply: async (context, { size, fails }) => {
        const { rid } = onResource(context);
        await this.#tryLuck(context, fails === 'once');
        const label = labelForStep(onResource(context), 'thing', { size });
        const known = this.things.get(rid);
        if (known?.whole === true && known.size === size) {
          // As it was made, so that whoever made it can undo it.
          if (!known.up) await this.#bringUp(actor, context);
        } else await this.#make(actor, context, label, size);
        if (fails === 'always') {
          this.#inVain.add(`${context.run} ${rid}`);
          throw new HyphaError('E_HEALTH', 'it falls apart each time');
        }
        return { $rid: rid, kind: 'thing', name: context.name };
      },
      probe: async (context, { size }) => {
        await this.#look(actor);
        const { rid, name, op } = onResource(context);
        const thing = this.things.get(rid);
        const isDone =
          thing?.whole === true && thing.up && thing.size === size && thing.lastOp === op;
        if (!isDone) return { state: 'absent' };
        return { state: 'done', result: { $rid: rid, kind: 'thing', name } };
      },
      undo: (context, _args, before) => this.#undo(actor, context, before),
    });
  }

  async #make(
    actor: Actor,
    context: StepContext,
    label: ResourceLabel,
    size: number,
  ): Promise<void> {
    const { rid } = onResource(context);
    if (!this.things.has(rid)) {
      const begun = { ...label, size: 0, mark: '', whole: false, up: true };
      await this.#half(actor, rid, context.signal, () => {
        this.things.set(rid, begun);
        this.#touch(context, context.op);
      });
    }
    await this.#half(actor, rid, context.signal, () => {
      this.#touch(context, context.op);
      const { createdBy, mark } = this.things.get(rid) ?? { ...label, mark: '' };
      this.things.set(rid, { ...label, createdBy, mark, size, whole: true, up: true });
    });
  }

  async #bringUp(actor: Actor, context: StepContext): Promise<void> {
    const { rid } = onResource(context);
    await this.#half(actor, rid, context.signal, () => {
      this.#touch(context, context.op);
      const thing = this.things.get(rid);
      if (thing !== undefined) this.things.set(rid, { ...thing, up: true });
    });
  }

  #mark(actor: Actor): SalVerb {
    return defineVerb<z.infer<typeof MarkArgs>>({
      verb: 'thing.mark',
      class: 'transition',
      capability: 'thing',
      kind: 'thing',
      parse: (args) => parseArguments('thing.mark', MarkArgs, args),
      plan: async (context) => {
        await this.#look(actor);
        if (isPlanned(context)) return { action: 'update', before: null };
        return { action: 'update', before: { thing: this.#get(context) } };
      },
      predict: async (_context, { mark }) => mark,
      apply: async (context, { mark }) => {
        await this.#tryLuck(context, false);
        const thing = this.#get(context);
        if (thing.mark === mark && thing.lastOp === context.op) return mark;
        await this.#half(actor, thing.rid, context.signal, () => {
          const now = this.#get(context);
          if (now.mark === mark && now.lastOp === context.op)
            this.#violate(`${context.op} marked twice`);
          this.#touch(context, context.op);
          this.things.set(thing.rid, { ...now, mark, lastOp: context.op });
        });
        return mark;
      },
      probe: async (context, { mark }) => {
        await this.#look(actor);
        const thing = this.things.get(onResource(context).rid);
        const isDone = thing?.mark === mark && thing.lastOp === context.op;
        return isDone ? { state: 'done', result: mark } : { state: 'absent' };
      },
      undo: (context, _args, before) => this.#undo(actor, context, before),
    });
  }

  #run(actor: Actor): SalVerb {
    return defineVerb<z.infer<typeof RunArgs>>({
      verb: 'thing.run',
      class: 'once',
      capability: 'thing',
      kind: 'thing',
      parse: (args) => parseArguments('thing.run', RunArgs, args),
      plan: async () => ({ action: 'run', before: null }),
      apply: async (context, { idempotent, mayBeDown }) => {
        // The engine of a dead process may come as far as this.
        await actor.pass();
        const thing = this.#get(context);
        if (!thing.up) this.#refuseDown(context, mayBeDown);
        await this.#clock.sleep(this.#random.int(1, HALF_MS_MAX), context.signal);
        await actor.pass();
        const times = (this.#runs.get(context.op) ?? 0) + 1;
        this.#runs.set(context.op, times);
        if (times > 1 && !idempotent) this.#violate(`${context.op} ran ${times} times`);
        await this.#clock.sleep(this.#random.int(1, HALF_MS_MAX));
        await actor.pass();
        return times;
      },
    });
  }

  #peek(actor: Actor): SalVerb {
    return defineVerb<unknown>({
      verb: 'thing.peek',
      class: 'read',
      capability: 'thing',
      kind: 'thing',
      parse: (args) => args,
      plan: async () => ({ action: 'run', before: null }),
      predict: async (context) => {
        await this.#look(actor);
        const { rid } = onResource(context);
        const marks = context.planned?.stepsOn(rid).filter(({ verb }) => verb === 'thing.mark');
        const last = MarkArgs.safeParse(marks?.at(-1)?.args).data;
        if (last !== undefined) return last.mark;
        return isPlanned(context) ? (this.things.get(rid)?.mark ?? '') : this.#get(context).mark;
      },
      apply: async (context) => {
        await this.#look(actor);
        return this.#get(context).mark;
      },
    });
  }

  async #undo(actor: Actor, context: StepContext, beforeJson: Json): Promise<void> {
    const { rid, op } = onResource(context);
    const { thing: before } = Before.parse(beforeJson);
    await this.#half(actor, rid, context.signal, () => {
      this.#touch(context, op);
      const now = this.things.get(rid);
      if (before === null) {
        if (now?.createdBy === op) this.things.delete(rid);
      } else if (now?.lastOp === op || now?.whole === false) {
        this.things.set(rid, { ...before, up: now?.up ?? true });
      }
    });
  }

  #observe(record: ResourceRecord) {
    const thing = this.things.get(record.rid);
    if (thing === undefined) return { state: 'missing', converged: false, addresses: [], info: {} };
    const converged = thing.whole && thing.up && thing.specHash === record.specHash;
    return { state: thing.up ? 'ready' : 'stopped', converged, addresses: [], info: {} };
  }

  async #converge(actor: Actor, record: ResourceRecord, signal: AbortSignal): Promise<void> {
    const { size } = z.object({ size: z.int() }).parse(record.spec);
    await this.#half(actor, record.rid, signal, () => {
      this.#touch(record, null);
      const now = this.things.get(record.rid);
      const label = now ?? { ...labelForRecord(record), mark: '' };
      this.things.set(record.rid, {
        ...label,
        ...{ specHash: specHashOf({ size }), size, whole: true, up: true },
      });
    });
  }

  /** One half of an effect: it happens at one moment, and only one process may be at a thing then. */
  async #half(actor: Actor, rid: Rid, signal: AbortSignal, change: () => void): Promise<void> {
    signal.throwIfAborted();
    await actor.pass();
    const other = this.#hands.get(rid);
    if (other !== undefined) this.#violate(`${actor.name} and ${other} are at ${rid} at once`);
    this.#hands.set(rid, actor.name);
    await this.#clock.sleep(this.#random.int(1, HALF_MS_MAX));
    await actor.pass();
    change();
    await this.#clock.sleep(this.#random.int(0, HALF_MS_MAX));
    await actor.pass();
    this.#hands.delete(rid);
  }

  async #look(actor: Actor): Promise<void> {
    await this.#clock.sleep(this.#random.int(0, 5));
    await actor.pass();
  }

  async #tryLuck({ op }: StepContext, failsOnce: boolean): Promise<void> {
    const isDue = failsOnce && !this.#failed.has(op);
    if (!isDue && !this.#random.chance(BUSY_SHARE)) return;
    this.#failed.add(op);
    throw new HyphaError('E_UNAVAILABLE', 'the machine is busy', { retryable: true });
  }

  #get(context: StepContext): Thing {
    const { rid, name } = onResource(context);
    const thing = this.things.get(rid);
    if (thing === undefined) throw new HyphaError('E_REFERENCE', `there is no thing ${name}`);
    return thing;
  }

  #touch({ deployment }: { readonly deployment: string }, op: string | null): void {
    this.touches.push({ atMs: this.#clock.nowMs(), deployment, op });
  }

  /** After a reboot only what an apply declared is up again before that goes on. */
  #refuseDown({ op, run, rid, name }: StepContext, mayBeDown: boolean): void {
    if (mayBeDown || this.#inVain.has(`${run} ${rid}`))
      throw new HyphaError('E_HEALTH', `the thing ${name} is down`);
    this.#violate(`${op} ran in a thing that is down`);
  }

  #violate(line: string): void {
    this.violations.push(line);
  }
}

/** True when an earlier step of the plan would have made it. */
function isPlanned(context: StepContext): boolean {
  return context.planned?.find(onResource(context).rid) !== undefined;
}
