import type { Journal, ProvisionalEntry, ResourceEntry } from '@hypha/journal';
import { HyphaError, type Json, type ResourceView } from '@hypha/protocol';
import type { Observed, ResourceRecord, Sals } from '@hypha/sal';
import type { Reconciler } from './reconciler.ts';

export interface ResourceName {
  readonly realm: string;
  readonly deployment: string;
  readonly kind: string;
  readonly name: string;
}

interface ReaderDeps {
  readonly journal: Journal;
  readonly sals: Sals;
  readonly reconciler: Pick<Reconciler, 'reasonOf'>;
}

/** One look at a resource may take this long, milliseconds. */
const OBSERVE_MS_MAX = 3_000;

type Entry = ResourceEntry | ProvisionalEntry;

/** What this node holds, as recorded and as it is. */
export class ResourceReader {
  readonly #deps: ReaderDeps;

  constructor(deps: ReaderDeps) {
    this.#deps = deps;
  }

  /** By realm, deployment, kind and name. `nextCursor` is the last name of the page. */
  async list(query: {
    readonly realm?: string | undefined;
    /** Only of these; undefined: of all. */
    readonly realms?: readonly string[] | undefined;
    readonly deployment?: string | undefined;
    readonly limit: number;
    readonly cursor?: string | undefined;
  }): Promise<{ items: ResourceView[]; nextCursor: string | null }> {
    const { realm, realms, deployment, limit, cursor = '' } = query;
    const entries = this.#entries()
      .filter((entry) => realm === undefined || entry.realm === realm)
      .filter((entry) => realms === undefined || realms.includes(entry.realm))
      .filter((entry) => deployment === undefined || entry.deployment === deployment)
      .filter((entry) => pathOf(entry) > cursor);
    const page = entries.slice(0, limit);
    const last = page.at(-1);
    return {
      items: await Promise.all(page.map((entry) => this.#view(entry))),
      nextCursor: last === undefined || entries.length <= limit ? null : pathOf(last),
    };
  }

  /** Throws `E_NOT_FOUND`. */
  async get(name: ResourceName): Promise<ResourceView> {
    return await this.#view(this.#find(name));
  }

  /** Throws `E_NOT_FOUND`, and `E_UNSUPPORTED` for kinds that write nothing. */
  async logs(
    name: ResourceName,
    options: { follow: boolean; tail: number | null; signal: AbortSignal },
  ): Promise<AsyncIterable<string>> {
    const record = this.#find(name);
    const kind = this.#deps.sals.findKind(record.kind);
    if (kind?.logs === undefined) {
      throw new HyphaError('E_UNSUPPORTED', `a ${record.kind} has no log`, {
        where: { path: 'kind' },
      });
    }
    return kind.logs(record, options);
  }

  #entries(): Entry[] {
    const { records, provisional } = this.#deps.journal.records.readWorld();
    const newest = new Map<string, Entry>(records.map((entry) => [entry.rid, entry]));
    for (const entry of provisional) newest.set(entry.rid, entry);
    return [...newest.values()].sort((a, b) => (pathOf(a) < pathOf(b) ? -1 : 1));
  }

  #find(name: ResourceName): Entry {
    const path = pathOf(name);
    const found = this.#entries().find((entry) => pathOf(entry) === path);
    if (found === undefined) throw unknownResource(name);
    return found;
  }

  async #view(entry: Entry): Promise<ResourceView> {
    const { rid, realm, deployment, kind, name, spec, specHash } = entry;
    const observed = await this.#observe(entry);
    const isRecord = 'status' in entry;
    const reason = this.#deps.reconciler.reasonOf(rid);
    return {
      ...{ rid, realm, deployment, kind, name, spec, specHash },
      status: isRecord ? entry.status : 'provisional',
      state: observed.state,
      createdBy: isRecord ? entry.createdBy : entry.run,
      lastOp: isRecord ? entry.lastOp : `${entry.run}/${entry.step}`,
      addresses: [...observed.addresses],
      simulated: this.#deps.sals.isSimulated(kind),
      info: reason === null ? observed.info : withReason(observed.info, reason),
    };
  }

  async #observe(record: ResourceRecord): Promise<Observed> {
    const kind = this.#deps.sals.findKind(record.kind);
    const unknown = { state: 'unknown', converged: false, addresses: [] };
    if (kind === undefined) {
      return { ...unknown, info: { reason: `this node has nothing that knows a ${record.kind}` } };
    }
    try {
      return await kind.observe(record, AbortSignal.timeout(OBSERVE_MS_MAX));
    } catch (error) {
      const reason = error instanceof HyphaError ? error.message : 'it cannot be looked at now';
      return { ...unknown, info: { reason } };
    }
  }
}

export function unknownResource(name: ResourceName): HyphaError {
  return new HyphaError('E_NOT_FOUND', `this node has no resource ${pathOf(name)}`, {
    hint: 'list them: hypha resource list',
  });
}

/** Why the reconciler could not bring it up, beside what the SAL has to say. */
function withReason(info: Json, reason: string): Json {
  const isObject = typeof info === 'object' && info !== null && !Array.isArray(info);
  return isObject ? { ...info, notReconciled: reason } : { info, notReconciled: reason };
}

function pathOf({ realm, deployment, kind, name }: ResourceName): string {
  return `${realm}/${deployment}/${kind}/${name}`;
}
