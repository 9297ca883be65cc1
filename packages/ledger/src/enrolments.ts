import {
  type Envelope,
  fromBase64,
  HyphaError,
  type NodeView,
  type VerifiedEnrolment,
  type Verifier,
  verifyEnrolment,
  verifyEnvelope,
} from '@hypha/protocol';
import { isStoreConflict, type Store } from '@hypha/store';
import type { AuthorityChain } from './authority-chain.ts';
import type { ChallengeBook } from './challenge-book.ts';
import type { LedgerDb, NodeRow } from './ledger-schema.ts';
import type { LogEntries } from './log-entries.ts';
import type { NodeRegistry } from './node-registry.ts';

interface Deps {
  readonly store: Store<LedgerDb>;
  readonly entries: LogEntries;
  readonly authority: AuthorityChain;
  readonly nodes: NodeRegistry;
  readonly challenges: ChallengeBook;
  readonly verifier: Verifier;
  readonly nowMs: () => number;
}

/** Nodes joining: proof of possession, an admission that is known, a token that is spent once (design §8). */
export class Enrolments {
  readonly #deps: Deps;

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /**
   * Durable when it resolves. A key that has enrolled gets its record again, whatever became of token and
   * challenge: that is how a node that missed the answer finds out.
   * @throws HyphaError the codes of `verifyEnrolment`, `E_CHALLENGE`, `E_TOKEN`, `E_NODE_NAME`
   */
  async enrol(envelope: Envelope): Promise<NodeView> {
    const { nodes, verifier, authority, challenges } = this.#deps;
    const known = await this.#findEnrolled(envelope);
    if (known !== undefined) return nodes.view(known);
    const enrolment = verifyEnrolment(verifier, {
      envelope,
      authority: authority.current,
      profile: 'accept',
      nowSeconds: Math.floor(this.#deps.nowMs() / 1000),
    });
    challenges.spend(enrolment.payload.challenge);
    await this.#checkPermitted(enrolment);
    try {
      await this.#write(enrolment);
    } catch (error) {
      if (!isStoreConflict(error)) throw error;
      // Somebody else was first: the same node twice, or another with this token or name.
      const twin = await this.#findEnrolled(envelope);
      if (twin === undefined) await this.#checkPermitted(enrolment);
      else return nodes.view(twin);
      throw error;
    }
    return nodes.view(await nodes.getById(enrolment.node));
  }

  async #findEnrolled(envelope: Envelope): Promise<NodeRow | undefined> {
    const { nodes, verifier } = this.#deps;
    const keyid = envelope.signatures[0]?.keyid ?? '';
    const row = await nodes.findByKey(keyid);
    if (row === undefined) return undefined;
    const publicKey = fromBase64(row.public_key);
    verifyEnvelope(verifier, {
      envelope,
      kind: 'enrol',
      keys: (claimed) => (claimed === keyid ? publicKey : undefined),
    });
    if (row.revoked === 1) {
      throw new HyphaError('E_KEY_REVOKED', `node ${row.id} was revoked`, {
        hint: 'make a new node key: remove the node state and join again',
      });
    }
    return row;
  }

  /** Passes what this same node has done a moment ago: the write then finds its twin. */
  async #checkPermitted({ admission, node }: VerifiedEnrolment): Promise<void> {
    const { store, nodes } = this.#deps;
    const { name } = admission.payload;
    const known = await store.db
      .selectFrom('admissions')
      .select('spent_by')
      .where('digest', '=', admission.digest)
      .executeTakeFirst();
    if (known === undefined) {
      throw new HyphaError('E_TOKEN', `the admission of ${name} is not in this ledger`, {
        where: { path: 'admission' },
      });
    }
    if (known.spent_by !== null && known.spent_by !== node) {
      throw new HyphaError('E_TOKEN', `the token of ${name} was spent by ${known.spent_by}`, {
        where: { path: 'token' },
      });
    }
    const namesake = await nodes.findByName(name);
    if (namesake !== undefined && namesake.id !== node) {
      throw new HyphaError('E_NODE_NAME', `cannot enrol ${node}: ${name} is ${namesake.id}`);
    }
  }

  async #write(enrolment: VerifiedEnrolment): Promise<void> {
    const { store, entries, nodes, nowMs } = this.#deps;
    const { node, digest, envelope, admission } = enrolment;
    await store.write([
      {
        query: store.db
          .updateTable('admissions')
          .set({ spent_by: node })
          .where('digest', '=', admission.digest)
          .where('spent_by', 'is', null),
        expectRows: 1,
      },
      ...entries.appendWrites({ kind: 'enrol', digest, envelope, at: nowMs(), node }),
      ...nodes.enrolWrites(enrolment),
    ]);
  }
}
