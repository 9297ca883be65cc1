import {
  type DeploymentView,
  HyphaError,
  type Page,
  type RunView,
  revisionState,
} from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { z } from 'zod';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { decodeCursor, pageFrom } from './page-cursor.ts';
import { type RevisionRow, viewOf } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';

interface PageOptions {
  readonly limit: number;
  readonly cursor?: string | undefined;
}

/** All of a revision but its envelope, which is large and which lists do not show. */
type RevisionSummary = Omit<RevisionRow, 'envelope'>;

const COLUMNS = [
  'revisions.digest',
  'revisions.id',
  'revisions.realm',
  'revisions.deployment',
  'revisions.generation',
  'revisions.mode',
  'revisions.resources',
  'revisions.wanted',
  'revisions.exp',
  'revisions.message',
  'revisions.known_at',
  'revisions.placed_at',
] as const;

const DeploymentKey = z.tuple([z.string(), z.string()]);
const RevisionKey = z.tuple([z.int(), z.string()]);

/** What can be read of deployments: each as its newest generation has it. */
export class DeploymentReader {
  readonly #store: Store<CoordinatorDb>;

  constructor(deps: { readonly store: Store<CoordinatorDb> }) {
    this.#store = deps.store;
  }

  /** By realm and name. @param realms only of these; undefined: of all */
  async list(
    { limit, cursor }: PageOptions,
    realms: readonly string[] | undefined,
  ): Promise<Page<DeploymentView>> {
    const after = decodeCursor(DeploymentKey, cursor);
    let query = this.#newest().orderBy('revisions.realm').orderBy('revisions.deployment');
    if (realms !== undefined) query = query.where('revisions.realm', 'in', realms);
    if (after !== undefined) {
      const [realm, name] = after;
      query = query.where(({ eb, or, and }) =>
        or([
          eb('revisions.realm', '>', realm),
          and([eb('revisions.realm', '=', realm), eb('revisions.deployment', '>', name)]),
        ]),
      );
    }
    const rows = await query.limit(limit + 1).execute();
    return await this.#page(rows, limit, (row) => [row.realm, row.deployment]);
  }

  /** Throws `E_NOT_FOUND`. */
  async get(realm: string, name: string): Promise<DeploymentView> {
    const row = await this.#newest()
      .where('revisions.realm', '=', realm)
      .where('revisions.deployment', '=', name)
      .executeTakeFirst();
    if (row === undefined) throw unknownDeployment(realm, name);
    const [view] = await this.#views([row]);
    if (view === undefined) throw unknownDeployment(realm, name);
    return view;
  }

  /** Every revision, the highest generation first; plans and tasks are none. Throws `E_NOT_FOUND`. */
  async revisions(
    realm: string,
    name: string,
    { limit, cursor }: PageOptions,
  ): Promise<Page<DeploymentView>> {
    const after = decodeCursor(RevisionKey, cursor);
    let query = this.#store.db
      .selectFrom('revisions')
      .select(COLUMNS)
      .where('realm', '=', realm)
      .where('deployment', '=', name)
      .where('mode', 'in', ['apply', 'destroy'])
      .orderBy('generation', 'desc')
      .orderBy('digest', 'desc')
      .limit(limit + 1);
    if (after !== undefined) {
      const [generation, digest] = after;
      query = query.where(({ eb, or, and }) =>
        or([
          eb('generation', '<', generation),
          and([eb('generation', '=', generation), eb('digest', '<', digest)]),
        ]),
      );
    }
    const rows = await query.execute();
    if (rows.length === 0 && after === undefined) throw unknownDeployment(realm, name);
    return await this.#page(rows, limit, (row) => [row.generation, row.digest]);
  }

  /** The revision that set each deployment's generation mark. */
  #newest() {
    return this.#store.db
      .selectFrom('generation_marks')
      .innerJoin('revisions', 'revisions.digest', 'generation_marks.digest')
      .select(COLUMNS);
  }

  async #page(
    rows: readonly RevisionSummary[],
    limit: number,
    keyOf: (row: RevisionSummary) => readonly (string | number)[],
  ): Promise<Page<DeploymentView>> {
    const { items, nextCursor } = pageFrom(rows, boundedLimit(rows, limit), keyOf, (row) => row);
    return { items: await this.#views(items), nextCursor };
  }

  async #views(revisions: readonly RevisionSummary[]): Promise<DeploymentView[]> {
    if (revisions.length === 0) return [];
    const rows = await this.#store.db
      .selectFrom('runs')
      .selectAll()
      .where(
        'digest',
        'in',
        revisions.map(({ digest }) => digest),
      )
      .orderBy('node')
      .execute();
    const runs = Map.groupBy(rows.map(viewOf), ({ envelopeDigest }) => envelopeDigest);
    return revisions.map((revision) => deploymentView(revision, runs.get(revision.digest) ?? []));
  }
}

/** A deployment may have a thousand runs: a page ends early rather than grow without bound. */
function boundedLimit(rows: readonly RevisionSummary[], limit: number): number {
  let runs = 0;
  const over = rows.findIndex(({ wanted }) => {
    runs += wanted;
    return runs > LIMITS.deploymentPageRunsMax;
  });
  return over === -1 ? limit : Math.min(limit, Math.max(1, over));
}

function deploymentView(revision: RevisionSummary, runs: RunView[]): DeploymentView {
  return {
    realm: revision.realm,
    deployment: revision.deployment,
    generation: revision.generation,
    revision: revision.id,
    mode: revision.mode as DeploymentView['mode'],
    state: revisionState(runs.map(({ state }) => state)),
    runs,
    submittedAt: revision.placed_at ?? revision.known_at,
    message: revision.message,
  };
}

/** Also for one that the caller may not see: to it there is no difference. */
export function unknownDeployment(realm: string, name: string): HyphaError {
  return new HyphaError('E_NOT_FOUND', `deployment ${realm}/${name} is not known here`, {
    hint: 'hypha deployment list',
  });
}
