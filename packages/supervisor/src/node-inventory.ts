import { type NodeSample, readFacts } from '@hypha/identity';
import type { Journal } from '@hypha/journal';
import type { DesiredResource, NodeFacts, ResourceLimits } from '@hypha/protocol';
import type { SalStatus, Sals } from '@hypha/sal';

/** This machine's SALs, opened. */
export interface NodeSals {
  readonly sals: Sals;
  /** All there is for volumes and images, bytes. */
  readonly storageBytes: number;
  /** What a runner needs to open the same ones. */
  readonly runnerConfig: unknown;
}

/** What this node is and has, and how much of it is promised. */
export class NodeInventory {
  readonly #host: NodeSals;
  #facts: Promise<NodeFacts> | undefined;

  constructor(host: NodeSals) {
    this.#host = host;
  }

  /** What a machine is does not change under a process. */
  facts(): Promise<NodeFacts> {
    const { sals, storageBytes } = this.#host;
    const statuses = sals.list.map(({ kind, status }) => [kind, factOf(status)] as const);
    this.#facts ??= readFacts({ storageBytes, sals: Object.fromEntries(statuses) });
    return this.#facts;
  }

  async capacity(): Promise<ResourceLimits> {
    const { cpus, memoryBytes, storageBytes } = await this.facts();
    return { milliCpus: cpus * 1000, memoryBytes, storageBytes };
  }

  /** For a report. */
  async sample(journal: Journal, authoritySeq: number): Promise<NodeSample> {
    const capacity = await this.capacity();
    const reserved = journal.reserved();
    const left = (component: keyof ResourceLimits) =>
      Math.max(0, capacity[component] - reserved[component]);
    return {
      facts: await this.facts(),
      reserved,
      free: {
        milliCpus: left('milliCpus'),
        memoryBytes: left('memoryBytes'),
        storageBytes: left('storageBytes'),
      },
      runsActive: journal.listLanes().reduce((sum, { runs }) => sum + runs.length, 0),
      authoritySeq,
    };
  }

  /** By the spec of the resource's own `ensure`; null when that cannot be read. */
  useOf({ kind, spec }: DesiredResource): ResourceLimits | null {
    const verb = this.#host.sals.findVerb(`${kind}.ensure`);
    if (verb?.spec === undefined) return null;
    try {
      return verb.spec(verb.parse(spec)).uses;
    } catch {
      return null;
    }
  }
}

/** Bounded as facts are: a reason may be as long as a tool is talkative. */
function factOf({ state, driver, reason }: SalStatus): NodeFacts['sals'][string] {
  const bounded = { state, driver: driver.slice(0, 128) };
  return reason === undefined ? bounded : { ...bounded, reason: reason.slice(0, 1024) };
}
