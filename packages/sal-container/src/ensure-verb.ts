/** `container.ensure`: the container exists with this spec, runs and is healthy. */
import { HyphaError, isHyphaError, Json } from '@hypha/protocol';
import {
  type ContainerResult,
  ContainerSpec,
  containerAddress,
  defineVerb,
  labelForStep,
  onResource,
  type Probe,
  parseArguments,
  parseImageReference,
  type SalVerb,
  type StepContext,
  type StepPlan,
  specHashOf,
} from '@hypha/sal';
import { z } from 'zod';
import { type Instance, parseInstanceId } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import type { Containers, MadeInstance } from './containers.ts';
import type { ResolvedImage } from './image-store.ts';
import { fieldHashes } from './instance-store.ts';

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
    })
    .nullable(),
});
type Before = z.infer<typeof Before>;
type Current = NonNullable<Before['current']>;

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
    plan: (context, spec) => verb.plan(onResource(context), spec),
    apply: (context, spec) => verb.apply(onResource(context), spec),
    probe: (context, spec) => verb.probe(onResource(context), spec),
    undo: (context, _spec, before) => verb.undo(onResource(context), Before.parse(before)),
  });
}

type ResourceContext = ReturnType<typeof onResource>;

class EnsureVerb {
  readonly #containers: Containers;

  constructor(containers: Containers) {
    this.#containers = containers;
  }

  async plan(context: ResourceContext, spec: ContainerSpec): Promise<StepPlan> {
    const current = await this.#readCurrent(context);
    const before: Before = { current };
    const image = await this.#resolve(spec, current);
    await this.#checkVolumes(spec);
    if (current === null) return { action: 'create', before };
    if (current.specHash !== specHashOf(Json.parse(spec)) || current.image !== image.sha256) {
      return { action: 'replace', before, differs: await this.#differing(current, spec, image) };
    }
    if (await this.#isAsWanted(instanceIn(current), spec, context.signal)) {
      return { action: 'no-op', before };
    }
    return { action: 'update', before, differs: ['state'] };
  }

  async apply(context: ResourceContext, spec: ContainerSpec): Promise<Json> {
    const { signal, name } = context;
    signal.throwIfAborted();
    const made = await this.#make(context, spec);
    const { instance } = made;
    if (!(await this.#isAsWanted(instance, spec, signal))) {
      await this.#containers.activate(made, { spec, restarts: 0, signal });
      await this.#containers.waitHealthy(instance, spec, { name, signal });
    }
    return this.#resultOf(context);
  }

  async probe(context: ResourceContext, spec: ContainerSpec): Promise<Probe> {
    const current = await this.#readCurrent(context);
    if (current === null || current.specHash !== specHashOf(Json.parse(spec))) {
      return { state: 'absent' };
    }
    const image = await this.#resolve(spec, current);
    const isWhole =
      current.image === image.sha256 &&
      (await this.#isAsWanted(instanceIn(current), spec, context.signal));
    return isWhole ? { state: 'done', result: this.#resultOf(context) } : { state: 'absent' };
  }

  async undo({ rid, signal }: ResourceContext, before: Before): Promise<void> {
    if (before.current === null) return this.#containers.dropAll(rid, signal);
    const { running } = before.current;
    await this.#containers.restore(instanceIn(before.current), running, signal);
  }

  /** The current instance when it is the wanted one, else this step's own. */
  async #make(context: ResourceContext, spec: ContainerSpec): Promise<MadeInstance> {
    const label = labelForStep(context, 'container', Json.parse(spec));
    const current = await this.#readCurrent(context);
    const image = await this.#resolve(spec, current);
    if (current?.specHash === label.specHash && current.image === image.sha256) {
      return { instance: instanceIn(current), isAttached: false };
    }
    return this.#containers.make(label, spec, image, context.signal);
  }

  /**
   * A container that exists needs its layout no more: what it was made from counts when the layout is
   * gone.
   */
  async #resolve(spec: ContainerSpec, current: Current | null): Promise<ResolvedImage> {
    try {
      return await this.#containers.images.resolve(spec.image);
    } catch (error) {
      const isSame = current?.specHash === specHashOf(Json.parse(spec));
      if (!isSame || !isHyphaError(error, 'E_IMAGE')) throw error;
      const reference = parseImageReference(spec.image);
      return { text: spec.image, reference, sha256: current.image };
    }
  }

  async #readCurrent({ rid, signal }: StepContext & { rid: string }): Promise<Current | null> {
    const { store } = this.#containers;
    const instance = await store.findCurrent(rid);
    if (instance === undefined) return null;
    const record = await store.read(instance);
    const running = await this.#containers.isRunning(instance, signal);
    const { specHash } = record.label;
    return { instance: instance.id, specHash, image: record.image, running };
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
      return (await this.#containers.checkHealth(instance, spec, { timeoutMs, signal })) === null;
    }
    const { state } = await this.#containers.runtime.status(instance, signal);
    if (state === 'running' || state === 'created' || spec.health !== undefined) return false;
    const decision = await this.#containers.decideRestart(instance, spec);
    return decision.action === 'rest';
  }

  async #differing(
    current: Current,
    spec: ContainerSpec,
    image: ResolvedImage,
  ): Promise<readonly string[]> {
    const record = await this.#containers.store.read(instanceIn(current));
    const wanted = fieldHashes(spec);
    const fields = new Set([...Object.keys(wanted), ...Object.keys(record.fields)]);
    const differs = [...fields].filter((field) => wanted[field] !== record.fields[field]);
    if (current.image !== image.sha256 && !differs.includes('image')) differs.push('image');
    return differs.toSorted();
  }

  async #checkVolumes(spec: ContainerSpec): Promise<void> {
    for (const [path, volume] of Object.entries(spec.mounts)) {
      if ((await this.#containers.host.findVolume(volume.$rid)) !== undefined) continue;
      const what = `volume ${volume.name} to mount at ${path}`;
      throw new HyphaError('E_REFERENCE', `${what} is not there`, {
        where: { path: `mounts.${path}` },
      });
    }
  }

  #resultOf({ rid, name }: ResourceContext): ContainerResult {
    const address = containerAddress(this.#containers.host.node, rid);
    return { $rid: rid, kind: 'container', name, address, simulated: false };
  }
}

function instanceIn({ instance }: Current): Instance {
  const parsed = parseInstanceId(instance);
  if (parsed !== undefined) return parsed;
  throw new HyphaError('E_INTERNAL', `not an instance of a container: ${instance}`);
}
