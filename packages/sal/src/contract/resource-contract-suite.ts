import { beforeEach, describe, expect, test } from 'vitest';
import { EFFECTS, type Effects } from '../effects.ts';
import type { Observed, ResourceKind, ResourceRecord } from '../resource-kind.ts';
import type { Sal } from '../sal.ts';
import { forEachCrashPoint, untilDeath } from './interruption.ts';
import {
  applyWhole,
  type ContractCall,
  type ContractWorld,
  contractContext,
  getVerb,
  recordOf,
} from './world.ts';

export interface ResourceCase<World extends ContractWorld> {
  readonly title: string;
  /** The `ensure` call that declares the resource. */
  readonly declared: ContractCall;
  /** Calls an earlier run made whole: the volume a container mounts. */
  readonly given?: readonly ContractCall[];
  /** Takes the resource away behind the adapter's back. */
  readonly lose: (world: World, record: ResourceRecord) => Promise<void>;
  /** The kind holds data, which `remove` keeps unless told. */
  readonly holdsData: boolean;
}

/** What the reconciler relies on (design §3, `resource-kind.ts`). */
export function describeResourceContract<World extends ContractWorld>(options: {
  adapter: string;
  createWorld: () => Promise<World>;
  cases: readonly ResourceCase<World>[];
  timeoutMs?: number;
  /** What this machine lacks to run them, as `needs …`: every test is then skipped with that note. */
  lacking?: string | undefined;
}): void {
  const { adapter, createWorld, cases, lacking } = options;
  const timeout = { timeout: options.timeoutMs ?? 120_000 };
  describe.each(cases)(`${adapter}: the reconciler's $title`, (resourceCase) => {
    const scene = new ResourceScene(createWorld, resourceCase);
    beforeEach((context) => {
      if (lacking !== undefined) context.skip(lacking);
    });

    test('is seen missing before it is there, without an effect', timeout, () =>
      scene.observesMissing(),
    );
    test('has nothing to do once reached', timeout, () => scene.convergesTwice());
    test('is converged by the step that declared it', timeout, () => scene.followsStep());
    test('converges after a crash anywhere in converge', timeout, () =>
      scene.convergesAfterCrashes(),
    );
    test('converges again after a loss', timeout, () => scene.convergesAfterLoss());
    test('made again for an unfinished run is undone by its step', timeout, () =>
      scene.undoesAfterLoss(),
    );
    test('is removed twice without harm', timeout, () => scene.removesTwice());
    test('is removed after a crash anywhere in remove', timeout, () => scene.removesAfterCrashes());
    if (resourceCase.holdsData) {
      test('keeps its data unless told', timeout, () => scene.keepsData());
    }
  });
}

interface Stage<World> {
  readonly world: World;
  readonly sal: Sal;
  readonly kind: ResourceKind;
  readonly record: ResourceRecord;
}

class ResourceScene<World extends ContractWorld> {
  readonly #createWorld: () => Promise<World>;
  readonly #case: ResourceCase<World>;
  readonly #signal = () => AbortSignal.timeout(120_000);

  constructor(createWorld: () => Promise<World>, resourceCase: ResourceCase<World>) {
    this.#createWorld = createWorld;
    this.#case = resourceCase;
  }

  async observesMissing(): Promise<void> {
    await this.#onStage(async ({ world, kind, record }) => {
      const empty = await world.capture();
      expect(await this.#observe(kind, record)).toMatchObject({
        state: 'missing',
        converged: false,
      });
      expect(await world.capture()).toEqual(empty);
    });
  }

  async convergesTwice(): Promise<void> {
    await this.#onStage(async ({ world, kind, record }) => {
      await kind.converge(record, this.#signal());
      expect((await this.#observe(kind, record)).converged).toBe(true);
      const reached = await world.capture();
      await kind.converge(record, this.#signal());
      expect(await world.capture()).toEqual(reached);
      const listed = await kind.list(this.#signal());
      const own = listed.filter((entry) => entry.rid === record.rid);
      expect(own).toHaveLength(1);
      expect(own[0]?.label).toContain(record.name);
    });
  }

  async followsStep(): Promise<void> {
    await this.#onStage(async ({ world, sal, kind, record }) => {
      await applyWhole(sal, this.#case.declared, { run: 'b' });
      expect((await this.#observe(kind, record)).converged).toBe(true);
      const declared = await world.capture();
      await kind.converge(record, this.#signal());
      expect(await world.capture()).toEqual(declared);
    });
  }

  async convergesAfterCrashes(): Promise<void> {
    const crashPoints = await forEachCrashPoint(async (effects, crashPoint) => {
      await this.#onStage(async ({ world, record }) => {
        const cut = await this.#open(world, effects);
        await untilDeath(effects, () => cut.converge(record, this.#signal()));
        const next = await this.#open(world, EFFECTS);
        await next.converge(record, this.#signal());
        expect((await this.#observe(next, record)).converged, crashPoint).toBe(true);
      });
    });
    expect(crashPoints).toBeGreaterThan(0);
  }

  async convergesAfterLoss(): Promise<void> {
    await this.#onStage(async ({ world, kind, record }) => {
      await kind.converge(record, this.#signal());
      await this.#case.lose(world, record);
      expect((await this.#observe(kind, record)).converged).toBe(false);
      await kind.converge(record, this.#signal());
      expect((await this.#observe(kind, record)).converged).toBe(true);
    });
  }

  async undoesAfterLoss(): Promise<void> {
    await this.#onStage(async ({ world, sal, kind, record }) => {
      const empty = await world.capture();
      const { declared, lose } = this.#case;
      const verb = getVerb(sal, declared.verb);
      const context = contractContext(verb, declared);
      const args = verb.parse(declared.args);
      const { before } = await verb.plan(context, args);
      await verb.apply(context, args, before);
      await lose(world, record);
      const madeBy = { createdBy: context.op, lastOp: context.op };
      await kind.converge({ ...record, madeBy }, this.#signal());
      await verb.undo?.(context, args, before);
      expect(await world.capture()).toEqual(empty);
    });
  }

  async removesTwice(): Promise<void> {
    await this.#onStage(async ({ world, kind, record }) => {
      const empty = await world.capture();
      await kind.converge(record, this.#signal());
      for (const time of ['once', 'twice']) {
        await kind.remove(record, { deleteData: true, signal: this.#signal() });
        expect(await world.capture(), time).toEqual(empty);
        expect((await this.#observe(kind, record)).state, time).toBe('missing');
        const listed = await kind.list(this.#signal());
        expect(
          listed.some((entry) => entry.rid === record.rid),
          time,
        ).toBe(false);
      }
    });
  }

  async removesAfterCrashes(): Promise<void> {
    const crashPoints = await forEachCrashPoint(async (effects, crashPoint) => {
      await this.#onStage(async ({ world, kind, record }) => {
        const empty = await world.capture();
        await kind.converge(record, this.#signal());
        const cut = await this.#open(world, effects);
        await untilDeath(effects, () =>
          cut.remove(record, { deleteData: true, signal: this.#signal() }),
        );
        const next = await this.#open(world, EFFECTS);
        await next.remove(record, { deleteData: true, signal: this.#signal() });
        expect(await world.capture(), crashPoint).toEqual(empty);
      });
    });
    expect(crashPoints).toBeGreaterThan(0);
  }

  async keepsData(): Promise<void> {
    await this.#onStage(async ({ world, kind, record }) => {
      await kind.converge(record, this.#signal());
      const reached = await world.capture();
      await kind.remove(record, { deleteData: false, signal: this.#signal() });
      expect(await world.capture()).toEqual(reached);
    });
  }

  async #onStage(act: (stage: Stage<World>) => Promise<void>): Promise<void> {
    const world = await this.#createWorld();
    try {
      const sal = await world.open(EFFECTS);
      for (const [index, call] of (this.#case.given ?? []).entries()) {
        await applyWhole(sal, call, { step: index + 1 });
      }
      const record = recordOf(sal, this.#case.declared);
      await act({ world, sal, kind: sal.resource, record });
    } finally {
      await world.close();
    }
  }

  async #open(world: World, effects: Effects): Promise<ResourceKind> {
    return (await world.open(effects)).resource;
  }

  #observe(kind: ResourceKind, record: ResourceRecord): Promise<Observed> {
    return kind.observe(record, this.#signal());
  }
}
