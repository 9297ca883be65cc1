/**
 * `container.ensure`: the container exists with this spec, runs and is healthy. `container.get`: what that
 * returned.
 */
import { HyphaError, isHyphaError, Json } from '@hypha/protocol';
import {
  adjustedFields,
  assertMounts,
  CONTAINER_STEP_LIMITS,
  type ContainerResult,
  ContainerSpec,
  changeOf,
  containerAddress,
  defineVerb,
  handleVerb,
  labelForStep,
  onResource,
  type Probe,
  parseArguments,
  parseImageReference,
  planOnPlanned,
  type ResourceContext,
  type SalVerb,
  type StepPlan,
  specHashOf,
} from '@hypha/sal';
import { z } from 'zod';
import { type Instance, parseInstanceId } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import type { Containers } from './containers.ts';
import type { ResolvedImage } from './image-store.ts';
import { InstanceRecord } from './instance-store.ts';

const ENSURE = 'container.ensure';

/** What was current before the step. The parked instance itself holds everything else undo needs. */
const Before = z.strictObject({
  current: z
    .strictObject({
      instance: z.string(),
      specHash: z.string(),
      /** `sha256` of its image. */
      image: z.string(),
      running: z.boolean(),
      /** It had no process. */
      ended: z.boolean().default(false),
      /** Of one that the step changes in place. */
      record: InstanceRecord.nullable().default(null),
    })
    .nullable(),
});
type Before = z.infer<typeof Before>;

/** What is current now. */
interface Current {
  readonly instance: Instance;
  readonly record: InstanceRecord;
  readonly running: boolean;
  readonly ended: boolean;
}

type Change = Pick<StepPlan, 'differs'> & { readonly action: 'no-op' | 'update' | 'replace' };

export function ensureVerb(containers: Containers): SalVerb {
  const verb = new EnsureVerb(containers);
  return defineVerb<ContainerSpec>({
    verb: ENSURE,
    class: 'ensure',
    capability: 'container',
    kind: 'container',
    parse: (args) => {
      const spec = parseArguments(ENSURE, ContainerSpec, args);
      parseImageReference(spec.image);
      return spec;
    },
    spec: (spec) => ({
      spec: Json.parse(spec),
      uses: { milliCpus: Math.ceil(spec.cpus * 1000), memoryBytes: spec.memory, storageBytes: 0 },
    }),
    deadlineMs: (spec) => CONTAINER_STEP_LIMITS.startMsMax + (spec.health?.within ?? 0),
    prepare: (context, spec) => verb.prepare(onResource(context), spec),
    plan: (context, spec) => verb.plan(onResource(context), spec),
    predict: async (context) => resultOf(containers, onResource(context)),
    apply: (context, spec) => verb.apply(onResource(context), spec),
    probe: (context, spec) => verb.probe(onResource(context), spec),
    undo: (context, _spec, before) => verb.undo(onResource(context), Before.parse(before)),
  });
}

export function containerHandleVerb(containers: Containers): SalVerb {
  return handleVerb({
    kind: 'container',
    find: async (context) => {
      const { planned, rid } = context;
      const isThere = planned?.find(rid) ?? (await containers.store.findCurrent(rid));
      return isThere === undefined ? undefined : resultOf(containers, context);
    },
  });
}

class EnsureVerb {
  readonly #containers: Containers;

  constructor(containers: Containers) {
    this.#containers = containers;
  }

  /** Pulls the image that a new container will be made of; one that stays needs none. */
  async prepare(context: ResourceContext, spec: ContainerSpec): Promise<void> {
    const current = await this.#readCurrent(context);
    const image = await this.#resolve(spec, current);
    if (current !== null && changeTo(current, spec, image).action !== 'replace') return;
    await this.#containers.images.ensure(image, context.signal);
  }

  async plan(context: ResourceContext, spec: ContainerSpec): Promise<StepPlan> {
    const { host } = this.#containers;
    const current = await this.#readCurrent(context);
    const image = await this.#resolve(spec, current);
    await assertMounts(spec, context, async (rid) => (await host.findVolume(rid)) !== undefined);
    const again = planOnPlanned(context, spec);
    if (again !== undefined) return { ...again, before: null };
    if (current === null) return { action: 'create', before: { current: null } };
    const change = changeTo(current, spec, image);
    const before = beforeOf(current, change);
    if (change.action !== 'no-op') return { ...change, before };
    const isWanted = await this.#isAsWanted(current.instance, spec, context.signal);
    return isWanted ? { ...change, before } : { action: 'update', before, differs: ['state'] };
  }

  async apply(context: ResourceContext, spec: ContainerSpec): Promise<Json> {
    const { signal, name } = context;
    signal.throwIfAborted();
    const instance = await this.#make(context, spec);
    if (!(await this.#isAsWanted(instance, spec, signal))) {
      await this.#containers.activate(instance, { spec, restarts: 0, signal });
      await this.#containers.health.wait(instance, spec, { name, signal });
    }
    return resultOf(this.#containers, context);
  }

  async probe(context: ResourceContext, spec: ContainerSpec): Promise<Probe> {
    const current = await this.#readCurrent(context);
    if (current?.record.label.specHash !== specHashOf(Json.parse(spec))) return { state: 'absent' };
    const image = await this.#resolve(spec, current);
    const isWhole =
      current.record.image === image.sha256 &&
      (await this.#isAsWanted(current.instance, spec, context.signal));
    if (!isWhole) return { state: 'absent' };
    // Whoever was cut may not have come to it.
    await this.#containers.store.sync();
    return { state: 'done', result: resultOf(this.#containers, context) };
  }

  async undo({ rid, signal, op }: ResourceContext, { current }: Before): Promise<void> {
    if (current === null) return this.#containers.dropAll(rid, signal);
    const { instance, running, ended, record } = current;
    const was = running ? 'running' : ended ? 'ended' : 'ailing';
    await this.#containers.restore(instanceNamed(instance), { op, record, was }, signal);
  }

  /** The current instance when it is the wanted one or becomes it in place, else this step's own. */
  async #make(context: ResourceContext, spec: ContainerSpec): Promise<Instance> {
    const label = labelForStep(context, 'container', Json.parse(spec));
    const current = await this.#readCurrent(context);
    const image = await this.#resolve(spec, current);
    const action = current === null ? 'create' : changeTo(current, spec, image).action;
    if (current === null || action === 'replace') {
      return this.#containers.make(label, spec, image, context.signal);
    }
    const { instance, record } = current;
    if (action === 'update') {
      const { createdBy } = record.label;
      const adjusted = {
        ...record,
        ...adjustedFields(record, spec),
        label: { ...label, createdBy },
      };
      await this.#containers.adjust(instance, adjusted, context.signal);
    }
    return instance;
  }

  /**
   * A container that exists needs its layout no more: what it was made from counts when the layout is
   * gone.
   */
  async #resolve(spec: ContainerSpec, current: Current | null): Promise<ResolvedImage> {
    try {
      return await this.#containers.images.resolve(spec.image);
    } catch (error) {
      const isKept = current !== null && !changeOf(current.record, spec).differs.includes('image');
      if (!isKept || !isHyphaError(error, 'E_IMAGE')) throw error;
      const reference = parseImageReference(spec.image);
      return { text: spec.image, reference, sha256: current.record.image };
    }
  }

  async #readCurrent({ rid, signal }: ResourceContext): Promise<Current | null> {
    const { store, runtime } = this.#containers;
    const instance = await store.findCurrent(rid);
    if (instance === undefined) return null;
    const record = await store.read(instance);
    const running = await this.#containers.isRunning(instance, signal);
    const ended = !running && !('pid' in (await runtime.status(instance, signal)));
    return { instance, record, running, ended };
  }

  /** Running and healthy now, or ended as its restart policy lets it. */
  async #isAsWanted(
    instance: Instance,
    spec: ContainerSpec,
    signal: AbortSignal,
  ): Promise<boolean> {
    const current = await this.#containers.store.findCurrent(instance.rid);
    if (current?.id !== instance.id) return false;
    if (await this.#containers.isRunning(instance, signal)) {
      const timeoutMs = CONTAINER_LIMITS.probeMsMax;
      return (await this.#containers.health.check(instance, spec, { timeoutMs, signal })) === null;
    }
    const { state } = await this.#containers.runtime.status(instance, signal);
    if (state === 'running' || state === 'created' || spec.health !== undefined) return false;
    const decision = await this.#containers.decideRestart(instance, spec);
    return decision.action === 'rest';
  }
}

function changeTo({ record }: Current, spec: ContainerSpec, image: ResolvedImage): Change {
  const isSameSpec = record.label.specHash === specHashOf(Json.parse(spec));
  const { action, differs }: Change = isSameSpec ? { action: 'no-op' } : changeOf(record, spec);
  if (record.image === image.sha256) return { action, ...(differs && { differs }) };
  const fields = new Set([...(differs ?? []), 'image']);
  return { action: 'replace', differs: [...fields].toSorted() };
}

function beforeOf({ instance, record, running, ended }: Current, { action }: Change): Before {
  const { image, label } = record;
  const kept = action === 'update' ? record : null;
  const { specHash } = label;
  return { current: { instance: instance.id, specHash, image, running, ended, record: kept } };
}

function resultOf(containers: Containers, { rid, name }: ResourceContext): ContainerResult {
  const address = containerAddress(containers.host.node, rid);
  return { $rid: rid, kind: 'container', name, address, simulated: false };
}

function instanceNamed(text: string): Instance {
  const parsed = parseInstanceId(text);
  if (parsed !== undefined) return parsed;
  throw new HyphaError('E_INTERNAL', `not an instance of a container: ${text}`);
}
