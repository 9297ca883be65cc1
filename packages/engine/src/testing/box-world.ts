/** A tiny world of boxes with verbs of every class, which counts what is done to it and dies on demand. */
import { HyphaError, type Json } from '@hypha/protocol';
import {
  composeSals,
  defineVerb,
  NO_USE,
  Ref,
  type Sals,
  SecretRef,
  type StepContext,
} from '@hypha/sal';
import { z } from 'zod';
import { Fuse } from './fuse.ts';

interface Box {
  readonly size: number;
  readonly colour: string;
  /** False after a crash in the middle of making it. */
  readonly whole: boolean;
  readonly lastOp: string;
}

const BoxState = z.object({
  size: z.number(),
  colour: z.string(),
  whole: z.boolean(),
  lastOp: z.string(),
});

const BoxArgs = z.strictObject({
  size: z.int().min(1).default(1),
  /** Fail this many times, then succeed. */
  busy: z.int().default(0),
  /** Fail for good after the effect. */
  broken: z.boolean().default(false),
  inside: z.unknown().optional(),
  /** A box that has to be there. */
  on: Ref.optional(),
  sealed: SecretRef.optional(),
  /** Fail before any effect. */
  blind: z.boolean().default(false),
  /** Fail to be undone for good. */
  sticky: z.boolean().default(false),
  /** Longest that making it may take, milliseconds. */
  within: z.int().default(600_000),
});
type BoxArgs = z.infer<typeof BoxArgs>;

const PaintArgs = z.strictObject({ colour: z.string() });
const RunArgs = z.strictObject({ idempotent: z.boolean().default(false) });

function parser<T>(schema: z.ZodType<T>): (args: Json) => T {
  return (args) => {
    const parsed = schema.safeParse(args);
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    throw new HyphaError('E_ARGUMENT', `not what a box takes: ${issue?.message ?? ''}`, {
      where: { path: issue?.path.join('.') ?? '' },
    });
  };
}

export class BoxWorld {
  readonly #kind: string;
  readonly boxes = new Map<string, Box>();
  /** `create a`, `paint a`, `run a` … in the order they happened. */
  readonly effects: string[] = [];
  /** Everything that must never happen. */
  readonly violations: string[] = [];
  /** What the engine's process does now; a crash ends it. */
  #process = new BoxProcess(new Fuse(Number.POSITIVE_INFINITY));
  /** Most calls that were under way at once. */
  atOnceMax = 0;
  /** Ignores its abort signal for ever. */
  deaf = false;
  /** Called when what a box needs is fetched. */
  onPrepare: ((context: StepContext) => void | Promise<void>) | undefined;
  onPlan: (() => void) | undefined;
  onUndo: ((context: StepContext) => void) | undefined;
  /** Called when an apply has begun. */
  onApply: ((context: StepContext) => void | Promise<void>) | undefined;

  /** @param kind what scripts call a box: `<kind>.ensure`, `<kind>.paint` … */
  constructor(kind: string) {
    this.#kind = kind;
  }

  count(effect: string): number {
    return this.effects.filter((done) => done === effect).length;
  }

  snapshot(): Record<string, Pick<Box, 'size' | 'colour' | 'whole'>> {
    const boxes = [...this.boxes].map(([name, { size, colour, whole }]) => {
      return [name, { size, colour, whole }] as const;
    });
    return Object.fromEntries(boxes.sort(([left], [right]) => left.localeCompare(right)));
  }

  sals(fuse: Fuse): Sals {
    this.#process = new BoxProcess(fuse);
    const own = this.#process;
    const verbs = [this.#ensure(own), this.#paint(own), this.#run(own), this.#peek(own)];
    const never = async () => Promise.reject(new Error('not for the engine'));
    const resource = {
      kind: this.#kind,
      observe: never,
      converge: never,
      remove: never,
      list: never,
    };
    const status = { state: 'simulated', driver: 'boxes' } as const;
    const broken = { state: 'unavailable', driver: 'none', reason: 'no hoist here' } as const;
    return composeSals([
      { kind: this.#kind, status, verbs, resource },
      { kind: 'crate', status: broken, verbs: [], resource: { ...resource, kind: 'crate' } },
    ]);
  }

  #ensure(process: BoxProcess) {
    const { fuse } = process;
    return defineVerb<BoxArgs>({
      verb: `${this.#kind}.ensure`,
      class: 'ensure',
      capability: this.#kind,
      kind: this.#kind,
      parse: parser(BoxArgs),
      spec: ({ size, sealed }) => ({
        spec: sealed === undefined ? { size } : { size, sealed },
        uses: { ...NO_USE, storageBytes: size },
      }),
      plan: async ({ name, rid, planned }, { size, blind, on }) => {
        await fuse.pass(`plan ${name}`);
        this.onPlan?.();
        if (blind) throw new HyphaError('E_IMAGE', `nothing to make box ${name} from`);
        if (on !== undefined && planned?.find(on.$rid) === undefined && !this.boxes.has(on.name)) {
          throw new HyphaError('E_REFERENCE', `box ${on.name} is not there`);
        }
        const box = this.boxes.get(name ?? '');
        const before = box === undefined ? null : { ...box };
        const declared = planned?.find(rid ?? '')?.spec as { size: number } | undefined;
        const current = declared?.size ?? box?.size;
        if (current === undefined) return { action: 'create', before };
        if (current === size) return { action: 'no-op', before };
        return { action: 'update', before, differs: ['size'] };
      },
      predict: async ({ rid, name }) => ({ $rid: rid ?? '', kind: this.#kind, name }),
      deadlineMs: ({ within }) => within,
      prepare: async (context) => {
        await fuse.live();
        await this.onPrepare?.(context);
      },
      apply: (context, args) =>
        this.#during(process, context, true, () => this.#make(fuse, context, args)),
      probe: async (context, args) => {
        const box = this.boxes.get(context.name ?? '');
        const isDone = box?.whole === true && box.size === args.size && box.lastOp === context.op;
        await fuse.pass(`probe ${context.name}`);
        if (!isDone) return { state: 'absent' };
        const result = { $rid: context.rid ?? '', kind: this.#kind, name: context.name };
        return { state: 'done', result };
      },
      undo: async (context, args, before) => {
        const name = context.name ?? '';
        await fuse.pass(`undo begins ${name}`);
        this.onUndo?.(context);
        if (args.sticky) throw new HyphaError('E_SAL', `box ${name} is stuck`);
        if (before === null) {
          if (this.boxes.delete(name)) this.effects.push(`delete ${name}`);
        } else {
          const old = BoxState.parse(before);
          if (this.boxes.get(name)?.size !== old.size) this.effects.push(`restore ${name}`);
          this.boxes.set(name, old);
        }
        await fuse.pass(`undo done ${name}`);
      },
    });
  }

  #paint(process: BoxProcess) {
    const { fuse } = process;
    return defineVerb<z.infer<typeof PaintArgs>>({
      verb: `${this.#kind}.paint`,
      class: 'transition',
      capability: this.#kind,
      kind: this.#kind,
      parse: parser(PaintArgs),
      plan: async ({ name }) => {
        return { action: 'update', before: this.boxes.get(name ?? '')?.colour ?? null };
      },
      predict: async (_context, { colour }) => colour,
      apply: (context, { colour }) =>
        this.#during(process, context, true, async () => {
          await fuse.pass(`paint begins ${context.name}`);
          this.#setColour(context.name ?? '', colour, context.op);
          await fuse.pass(`paint done ${context.name}`);
          return colour;
        }),
      probe: async ({ name, op }, { colour }) => {
        const box = this.boxes.get(name ?? '');
        if (box?.colour !== colour || box.lastOp !== op) return { state: 'absent' };
        return { state: 'done', result: colour };
      },
      undo: async ({ name, op }, _args, before) => {
        await fuse.pass(`unpaint begins ${name}`);
        if (typeof before === 'string') this.#setColour(name ?? '', before, op);
        await fuse.pass(`unpaint done ${name}`);
      },
    });
  }

  #run(process: BoxProcess) {
    const { fuse } = process;
    return defineVerb<z.infer<typeof RunArgs>>({
      verb: `${this.#kind}.run`,
      class: 'once',
      capability: this.#kind,
      kind: this.#kind,
      parse: parser(RunArgs),
      plan: async () => ({ action: 'run', before: null }),
      apply: (context) =>
        this.#during(process, context, false, async () => {
          await fuse.pass(`run begins ${context.name}`);
          this.effects.push(`run ${context.name}`);
          await fuse.pass(`run done ${context.name}`);
          return this.count(`run ${context.name}`);
        }),
    });
  }

  #peek(process: BoxProcess) {
    return defineVerb<unknown>({
      verb: `${this.#kind}.peek`,
      class: 'read',
      capability: this.#kind,
      kind: this.#kind,
      parse: (args) => args,
      plan: async () => ({ action: 'run', before: null }),
      // Of what is only planned it cannot tell.
      predict: async ({ name, rid, planned }) => {
        if (planned !== undefined && planned.stepsOn(rid ?? '').length > 0) return undefined;
        return this.boxes.get(name ?? '')?.colour ?? null;
      },
      apply: (context) =>
        this.#during(process, context, false, async () => {
          return this.boxes.get(context.name ?? '')?.colour ?? null;
        }),
    });
  }

  #setColour(name: string, colour: string, lastOp: string): void {
    const box = this.boxes.get(name);
    if (box === undefined || box.colour === colour) return;
    this.effects.push(`paint ${name} ${colour}`);
    this.boxes.set(name, { ...box, colour, lastOp });
  }

  async #make(fuse: Fuse, context: StepContext, args: BoxArgs): Promise<Json> {
    const name = context.name ?? '';
    await fuse.pass(`apply begins ${name}`);
    const tries = (this.#process.tries.get(context.op) ?? 0) + 1;
    this.#process.tries.set(context.op, tries);
    if (tries <= args.busy) throw new HyphaError('E_UNAVAILABLE', `box ${name} is busy`);
    const box = this.boxes.get(name);
    if (box === undefined) {
      this.effects.push(`create ${name}`);
      this.boxes.set(name, { size: 0, colour: 'plain', whole: false, lastOp: context.op });
      await fuse.pass(`apply half done ${name}`);
    }
    const colour = this.boxes.get(name)?.colour ?? 'plain';
    if (box?.size !== args.size) this.effects.push(`size ${name} ${args.size}`);
    // Nothing can break of what is already as it should be.
    const isBreaking = args.broken && !(box?.whole === true && box.size === args.size);
    const whole = !isBreaking;
    this.boxes.set(name, { size: args.size, colour, whole, lastOp: context.op });
    await fuse.pass(`apply done ${name}`);
    if (isBreaking) throw new HyphaError('E_HEALTH', `box ${name} fell apart`);
    return { $rid: context.rid ?? '', kind: this.#kind, name };
  }

  /** One call at a time may change a box, and nobody looks at it meanwhile. */
  async #during<T>(
    process: BoxProcess,
    context: StepContext,
    changes: boolean,
    work: () => Promise<T>,
  ): Promise<T> {
    await process.fuse.live();
    const name = context.name ?? '';
    const others = process.calls.get(name) ?? [];
    if (others.some((other) => other || changes)) {
      this.violations.push(`two calls at once on ${name} at ${context.op}`);
    }
    process.calls.set(name, [...others, changes]);
    process.atOnce += 1;
    this.atOnceMax = Math.max(this.atOnceMax, process.atOnce);
    try {
      await this.onApply?.(context);
      if (this.deaf) await new Promise<never>(() => undefined);
      context.signal.throwIfAborted();
      return await work();
    } finally {
      process.atOnce -= 1;
      const left = [...(process.calls.get(name) ?? [])];
      left.splice(left.indexOf(changes), 1);
      process.calls.set(name, left);
    }
  }
}

/** What one process of the engine is about to do: gone when it dies. */
class BoxProcess {
  readonly fuse: Fuse;
  // op → tries so far
  readonly tries = new Map<string, number>();
  // box → of every call under way, whether it changes the box
  readonly calls = new Map<string, readonly boolean[]>();
  atOnce = 0;

  constructor(fuse: Fuse) {
    this.fuse = fuse;
  }
}
