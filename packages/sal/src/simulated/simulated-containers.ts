import { join } from 'node:path';
import { HyphaError, Json, type NodeId, Rid } from '@hypha/protocol';
import { z } from 'zod';
import { containerAddress } from '../address.ts';
import {
  adjustedFields,
  assertMounts,
  CONTAINER_STEP_LIMITS,
  changeOf,
  DeclaredFields,
  declaredFields,
  planOnPlanned,
  UNKNOWN_FIELDS,
} from '../container/index.ts';
import type { Effects } from '../effects.ts';
import { handleVerb } from '../handle-verb.ts';
import { getLayoutDigest, parseImageReference } from '../image-reference.ts';
import { findRecord, removeRecord, writeRecord } from '../record-file.ts';
import type { ResourceKind, ResourceRecord } from '../resource-kind.ts';
import {
  labelForRecord,
  labelForStep,
  labelText,
  ResourceLabel,
  specHashOf,
} from '../resource-label.ts';
import type { Sal, SalStatus } from '../sal.ts';
import { ContainerSpec, ExecArgs } from '../specs.ts';
import { onResource, parseArguments } from '../step-arguments.ts';
import { defineVerb, type SalVerb, type StepContext, type StepPlan } from '../step-contract.ts';
import { listRecords } from './simulated-volumes.ts';

const ENSURE = 'container.ensure';
const EXEC = 'container.exec';

/** Without the spec: `env` and `files` may hold secrets, which no file may. */
const SimulatedContainer = ResourceLabel.extend({
  image: z.string(),
  declared: DeclaredFields.default(UNKNOWN_FIELDS),
});
type SimulatedContainer = z.infer<typeof SimulatedContainer>;

const ContainerBefore = z.strictObject({ container: SimulatedContainer.nullable() });

/** As recorded, and nothing more held than that. */
function isReached(found: SimulatedContainer, record: ResourceRecord): boolean {
  return found.specHash === record.specHash && found.declared.held === null;
}

/** Containers that are records: `container/<rid>.json`. What a node can check without running any is checked. */
export class SimulatedContainers {
  readonly #folder: string;
  readonly #node: NodeId;
  readonly #status: SalStatus;
  readonly #effects: Effects;
  readonly #hasVolume: (rid: Rid) => Promise<boolean>;

  constructor(options: {
    folder: string;
    node: NodeId;
    status: SalStatus;
    effects: Effects;
    /** Volumes may be real where containers are not. */
    hasVolume: (rid: Rid) => Promise<boolean>;
  }) {
    this.#folder = join(options.folder, 'container');
    this.#node = options.node;
    this.#status = options.status;
    this.#effects = options.effects;
    this.#hasVolume = options.hasVolume;
  }

  get sal(): Sal {
    return {
      kind: 'container',
      status: this.#status,
      verbs: [this.#ensureVerb(), this.#execVerb(), this.#getVerb()],
      resource: this.#resource(),
    };
  }

  #ensureVerb(): SalVerb {
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
        uses: {
          milliCpus: Math.ceil(spec.cpus * 1000),
          memoryBytes: spec.memory,
          storageBytes: 0,
        },
      }),
      deadlineMs: (spec) => CONTAINER_STEP_LIMITS.startMsMax + (spec.health?.within ?? 0),
      plan: (context, spec) => this.#plan(context, spec),
      predict: async (context) => this.#resultOf(context),
      apply: (context, spec) => this.#apply(context, spec),
      probe: async (context, spec) => {
        const found = await this.#find(onResource(context).rid);
        if (found?.specHash !== specHashOf(Json.parse(spec))) return { state: 'absent' };
        return { state: 'done', result: this.#resultOf(context) };
      },
      undo: (context, _spec, before) => this.#undo(context, before),
    });
  }

  async #plan(context: StepContext, spec: ContainerSpec): Promise<StepPlan> {
    const { rid } = onResource(context);
    const container = (await this.#find(rid)) ?? null;
    const before = { container };
    const again = planOnPlanned(context, spec);
    const specHash = specHashOf(Json.parse(spec));
    if (again === undefined && container?.specHash === specHash) return { action: 'no-op', before };
    await this.#assertNeeds(context, spec);
    if (again !== undefined) return { ...again, before };
    if (container === null) return { action: 'create', before };
    return { ...changeOf(container.declared, spec), before };
  }

  async #apply(context: StepContext, spec: ContainerSpec): Promise<Json> {
    const { rid, op, signal } = onResource(context);
    signal.throwIfAborted();
    const label = labelForStep(onResource(context), 'container', Json.parse(spec));
    const current = await this.#find(rid);
    if (current?.specHash !== label.specHash) {
      const createdBy = current?.createdBy ?? op;
      const past = current?.declared ?? UNKNOWN_FIELDS;
      const isUpdate = changeOf(past, spec).action === 'update';
      const declared = isUpdate ? adjustedFields(past, spec) : declaredFields(spec);
      await this.#write({ ...label, createdBy, image: spec.image, declared });
    }
    return this.#resultOf(context);
  }

  async #undo(context: StepContext, beforeJson: Json): Promise<void> {
    const { rid, op } = onResource(context);
    const before = ContainerBefore.parse(beforeJson).container;
    const current = await this.#find(rid);
    if (before === null) {
      if (current?.createdBy === op) await this.#remove(rid);
    } else if (current?.lastOp === op) {
      await this.#write(before);
    }
  }

  /** As the real adapter would find out: the image is there, and so are the volumes. */
  async #assertNeeds(context: StepContext, spec: ContainerSpec): Promise<void> {
    const image = parseImageReference(spec.image);
    if (image.source === 'layout') await getLayoutDigest(image.folder, image.tag);
    await assertMounts(spec, context, this.#hasVolume);
  }

  #getVerb(): SalVerb {
    return handleVerb({
      kind: 'container',
      find: async (context) => {
        const isThere = context.planned?.find(context.rid) ?? (await this.#find(context.rid));
        return isThere === undefined ? undefined : this.#resultOf(context);
      },
    });
  }

  #execVerb(): SalVerb {
    return defineVerb<ExecArgs>({
      verb: EXEC,
      class: 'once',
      capability: 'container',
      kind: 'container',
      parse: (args) => parseArguments(EXEC, ExecArgs, args),
      deadlineMs: ({ timeout }) => timeout + CONTAINER_STEP_LIMITS.execGraceMs,
      plan: async () => ({ action: 'run', before: null }),
      apply: async (context) => {
        const { rid, name, signal } = onResource(context);
        signal.throwIfAborted();
        if ((await this.#find(rid)) === undefined) {
          throw new HyphaError('E_REFERENCE', `container ${name} is not there`);
        }
        return { exitCode: 0, stdout: '', stderr: '', simulated: true };
      },
    });
  }

  #resource(): ResourceKind {
    return {
      kind: 'container',
      observe: async (record) => {
        const found = await this.#find(record.rid);
        if (found === undefined) {
          return { state: 'missing', converged: false, addresses: [], info: {} };
        }
        return {
          state: 'running',
          converged: isReached(found, record),
          addresses: [containerAddress(this.#node, record.rid)],
          info: { image: found.image, simulated: true },
        };
      },
      converge: async (record) => {
        const spec = ContainerSpec.parse(record.spec);
        const found = await this.#find(record.rid);
        if (found !== undefined && isReached(found, record)) return;
        const label = labelForRecord(record);
        const createdBy = found?.createdBy ?? label.createdBy;
        const declared = declaredFields(spec);
        await this.#write({ ...label, createdBy, image: spec.image, declared });
      },
      remove: (record) => this.#remove(record.rid),
      list: async () => {
        const rids = await listRecords(this.#folder);
        const found = await Promise.all(rids.map((rid) => this.#find(Rid.parse(rid))));
        return found
          .filter((label) => label !== undefined)
          .map((label) => ({ rid: label.rid, label: labelText(label) }));
      },
    };
  }

  #find(rid: Rid): Promise<SimulatedContainer | undefined> {
    return findRecord(this.#file(rid), SimulatedContainer);
  }

  #write(container: SimulatedContainer): Promise<void> {
    return this.#effects.change(() => writeRecord(this.#file(container.rid), container));
  }

  #remove(rid: Rid): Promise<void> {
    return this.#effects.change(() => removeRecord(this.#file(rid)));
  }

  #file(rid: Rid): string {
    return join(this.#folder, `${Rid.parse(rid)}.json`);
  }

  #resultOf(context: StepContext): Json {
    const { rid, name } = onResource(context);
    const address = containerAddress(this.#node, rid);
    return { $rid: rid, kind: 'container', name, address, simulated: true };
  }
}
