import {
  findUncovered,
  fromBase64,
  HyphaError,
  type ReplaceableNode,
  type VerifiedEnrolment,
} from '@hypha/protocol';
import type { Store } from '@hypha/store';
import type { LedgerDb, NodeRow } from './ledger-schema.ts';
import type { NodeRegistry } from './node-registry.ts';

/** What only the ledger knows of an enrolment: admissions that were spent, names that are taken, who is replaced. */
export class EnrolmentRules {
  readonly #store: Store<LedgerDb>;
  readonly #nodes: NodeRegistry;

  constructor({ store, nodes }: { readonly store: Store<LedgerDb>; readonly nodes: NodeRegistry }) {
    this.#store = store;
    this.#nodes = nodes;
  }

  /** What a statement has to stand under that takes this node's place by its key. */
  async placeOf({ id, public_key }: NodeRow): Promise<ReplaceableNode | undefined> {
    const admission = await this.#store.db
      .selectFrom('admissions')
      .select('digest')
      .where('spent_by', '=', id)
      .executeTakeFirst();
    if (admission === undefined) return undefined;
    return { publicKey: fromBase64(public_key), admission: admission.digest };
  }

  /**
   * Answers the node that has to make room.
   * @param replaced by its own key
   */
  async checkPermitted(
    enrolment: VerifiedEnrolment,
    replaced: NodeRow | undefined,
  ): Promise<NodeRow | undefined> {
    try {
      return await this.#findOutgoing(enrolment, replaced);
    } catch (error) {
      // Who took its place since it was read has its name and admission too; that is not the reason.
      const now = replaced === undefined ? undefined : await this.#nodes.getById(replaced.id);
      throw now?.revoked === 1 ? revokedError(now) : error;
    }
  }

  async #findOutgoing(
    enrolment: VerifiedEnrolment,
    replaced: NodeRow | undefined,
  ): Promise<NodeRow | undefined> {
    const { admission, node, payload } = enrolment;
    const { name } = admission.payload;
    const known = await this.#store.db
      .selectFrom('admissions')
      .select('spent_by')
      .where('digest', '=', admission.digest)
      .executeTakeFirst();
    if (known === undefined) {
      throw new HyphaError('E_TOKEN', `the admission of ${name} is not in this ledger`, {
        where: { path: 'admission' },
      });
    }
    // By its own old key it takes that node's place under the same admission; else it spends a fresh one.
    if (known.spent_by !== (replaced?.id ?? null)) {
      throw new HyphaError('E_TOKEN', `the admission of ${name} was spent by ${known.spent_by}`, {
        where: { path: payload.token === undefined ? 'admission' : 'token' },
      });
    }
    const outgoing = replaced ?? (await this.#findReplacedByAdmin(enrolment));
    const namesake = await this.#nodes.findByName(name);
    if (namesake === undefined || namesake.id === outgoing?.id) return outgoing;
    throw new HyphaError('E_NODE_NAME', `cannot enrol ${node}: ${name} is ${namesake.id}`, {
      where: { path: 'admission' },
      hint: `choose another name; or give it a new key: hypha node admit ${node} --replaces ${name}`,
    });
  }

  /** The admin has to have a say about all that the node leaves behind, or it could be pushed out of realms. */
  async #findReplacedByAdmin({ admission, node }: VerifiedEnrolment): Promise<NodeRow | undefined> {
    const { replaces, name } = admission.payload;
    if (replaces === undefined) return undefined;
    const where = { path: 'admission.replaces' };
    const row = await this.#nodes.getById(replaces);
    const { realms } = this.#nodes.view(row);
    const { grant } = admission;
    const isCovered =
      findUncovered(grant.realms, realms) === undefined &&
      findUncovered(grant.nodes, [replaces]) === undefined;
    if (!isCovered) {
      throw new HyphaError('E_SCOPE', `key ${grant.name} has no say about ${row.name}`, { where });
    }
    if (row.replaced_by !== null) {
      throw new HyphaError('E_CONFLICT', `${replaces} was replaced by ${row.replaced_by}`, {
        where,
      });
    }
    if (row.name === name) return row;
    throw new HyphaError(
      'E_NODE_NAME',
      `cannot enrol ${node} as ${name} in the place of ${replaces}, which is ${row.name}`,
      { where, hint: `a new key keeps the name: hypha node admit ${node} --replaces ${row.name}` },
    );
  }
}

export function revokedError({ id, replaced_by }: NodeRow): HyphaError {
  const what = replaced_by === null ? 'was revoked' : `was replaced by ${replaced_by}`;
  return new HyphaError('E_KEY_REVOKED', `node ${id} ${what}`, {
    where: { path: 'publicKey' },
    hint: 'make a new node key: remove the node state and join again',
  });
}
