import {
  type Authority,
  type EnrolStatement,
  type Envelope,
  fromBase64,
  HyphaError,
  LIMITS,
  type NodeView,
  type VerifiedEnrolment,
  type Verifier,
  verifyEnrolment,
  verifyEnrolStatement,
} from '@hypha/protocol';
import { isStoreConflict, type Store, type Write } from '@hypha/store';
import type { AuthorityChain } from './authority-chain.ts';
import type { ChallengeBook } from './challenge-book.ts';
import { EnrolmentRules, revokedError } from './enrolment-rules.ts';
import { LEDGER_LIMITS } from './ledger-limits.ts';
import type { LedgerDb, NodeRow } from './ledger-schema.ts';
import type { LogEntries } from './log-entries.ts';
import type { NodeRegistry } from './node-registry.ts';
import {
  freeOf,
  inheritReceiptsWrite,
  joinWrites,
  replaceWrites,
  sealWrite,
} from './node-writes.ts';
import type { PendingNodes } from './pending-nodes.ts';

interface Deps {
  readonly store: Store<LedgerDb>;
  readonly entries: LogEntries;
  readonly authority: AuthorityChain;
  readonly nodes: NodeRegistry;
  readonly challenges: ChallengeBook;
  readonly pending: PendingNodes;
  readonly verifier: Verifier;
  readonly nowMs: () => number;
}

/** One enrol statement, judged again and again under the authority of the moment. */
interface Attempt {
  readonly envelope: Envelope;
  /** IP address it came from. */
  readonly address: string;
  readonly authority: Authority;
  /** Answers for the challenge, once for all attempts. Throws `E_CHALLENGE`. */
  readonly spendChallenge: (challenge: string) => void;
}

/**
 * Nodes joining, coming back with another sealing key, and taking the place of one (design §8). Who is let in is
 * judged under the authority that is the newest when the record is written: a revocation that came first counts.
 */
export class Enrolments {
  readonly #deps: Deps;
  readonly #rules: EnrolmentRules;

  constructor(deps: Deps) {
    this.#deps = deps;
    this.#rules = new EnrolmentRules(deps);
  }

  /**
   * Durable when it resolves. A key that has enrolled gets its record again, whatever became of token and
   * challenge: that is how a node that missed the answer finds out. Without an open challenge the statement may be
   * anybody's, from the log: then the record is as it was at the enrolment. With another sealing key and a later
   * `iat` that one counts from now on.
   * @param address IP address the statement came from
   * @throws HyphaError the codes of `verifyEnrolment`, of those `E_PENDING` once the request is kept for an
   *   admin to see; `E_RATE` when too many wait; `E_CHALLENGE`, `E_TOKEN`, `E_NODE_NAME`; `E_NOT_YET` and `E_REPLAY`
   *   for its `iat`; `E_KEY_REVOKED` for a node that was replaced, too; `E_SCOPE`, `E_NOT_FOUND`, `E_CONFLICT`
   *   for what it would replace
   */
  async enrol(envelope: Envelope, address: string): Promise<NodeView> {
    const { authority, challenges } = this.#deps;
    let isSpent = false;
    const spendChallenge = (challenge: string) => {
      if (!isSpent) challenges.spend(challenge);
      isSpent = true;
    };
    for (let attempt = 1; ; attempt++) {
      const { current } = authority;
      try {
        return await this.#enrol({ envelope, address, authority: current, spendChallenge });
      } catch (error) {
        // Something it was judged by has changed: the authority, the record of the same node, token or name.
        if (!isStoreConflict(error)) throw error;
        if (attempt >= LEDGER_LIMITS.enrolAttempts) {
          throw new HyphaError('E_UNAVAILABLE', 'the authority changes too often to enrol now', {
            cause: error,
          });
        }
        await authority.whileSettled(async () => undefined);
      }
    }
  }

  async #enrol(attempt: Attempt): Promise<NodeView> {
    const { verifier, nodes, pending } = this.#deps;
    const { envelope, authority } = attempt;
    const signers = await this.#findSigners(envelope);
    const findNodeKey = (id: string) => {
      const row = signers.find((signer) => signer.id === id);
      return row === undefined ? undefined : fromBase64(row.public_key);
    };
    const statement = verifyEnrolStatement(verifier, { envelope, authority, findNodeKey });
    const { node, payload } = statement;
    const known = signers.find(({ id }) => id === node);
    if (known !== undefined) return await this.#comeBack(known, statement, attempt);
    const replaced = signers.find(({ id }) => id === payload.replaces);
    if (replaced?.revoked === 1) throw revokedError(replaced);
    this.#checkDate(statement);
    if (payload.admission === undefined) {
      attempt.spendChallenge(payload.challenge);
      pending.keep(statement, attempt.address);
    }
    // Without an admission this is where it ends: E_PENDING.
    const place = replaced === undefined ? undefined : await this.#rules.placeOf(replaced);
    const enrolment = verifyEnrolment(verifier, {
      ...{ envelope, authority, profile: 'accept', nowSeconds: this.#nowSeconds() },
      findReplaced: (id) => (id === replaced?.id ? place : undefined),
    });
    const outgoing = await this.#rules.checkPermitted(enrolment, replaced);
    attempt.spendChallenge(payload.challenge);
    await this.#join(enrolment, outgoing, authority);
    pending.drop(node);
    return nodes.view(await nodes.getById(node));
  }

  /** Nodes whose keys the envelope names; that they signed it is still to be seen. */
  async #findSigners({ signatures }: Envelope): Promise<NodeRow[]> {
    const rows = await Promise.all(
      signatures.map(({ keyid }) => this.#deps.nodes.findByKey(keyid)),
    );
    return rows.filter((row) => row !== undefined);
  }

  async #comeBack(row: NodeRow, statement: EnrolStatement, attempt: Attempt): Promise<NodeView> {
    const { nodes, entries, store, authority, challenges, nowMs } = this.#deps;
    const { payload, digest, envelope, node } = statement;
    if (row.revoked === 1) throw revokedError(row);
    if (payload.sealKey === row.seal_key) {
      const view = nodes.view(row);
      return challenges.isOpen(payload.challenge) ? view : asEnrolled(view, payload);
    }
    if (payload.iat <= row.enrolled_iat) {
      throw new HyphaError(
        'E_REPLAY',
        `${row.name} named its sealing key at ${row.enrolled_iat}; this statement is of ${payload.iat}`,
        { where: { path: 'iat' }, hint: `sign a new one; if it is new, fix NTP on ${row.name}` },
      );
    }
    this.#checkDate(statement);
    attempt.spendChallenge(payload.challenge);
    await store.write([
      ...entries.appendWrites({ kind: 'enrol', digest, envelope, at: nowMs(), node }),
      sealWrite(store.db, statement),
      authority.unchangedWrite(attempt.authority),
    ]);
    return nodes.view(await nodes.getById(node));
  }

  /** One from the future could never be followed by another. */
  #checkDate({ payload, node }: EnrolStatement): void {
    const nowSeconds = this.#nowSeconds();
    if (payload.iat <= nowSeconds + LIMITS.skewSeconds) return;
    throw new HyphaError(
      'E_NOT_YET',
      `the enrolment of ${node} is dated ${payload.iat}, now is ${nowSeconds}`,
      { where: { path: 'iat' }, hint: `fix NTP on ${payload.facts.hostname}` },
    );
  }

  async #join(
    enrolment: VerifiedEnrolment,
    replaced: NodeRow | undefined,
    judgedUnder: Authority,
  ): Promise<void> {
    const { store, entries, authority, verifier, nowMs } = this.#deps;
    const { node, digest, envelope, admission, payload } = enrolment;
    const at = nowMs();
    const spend: Write = {
      query: store.db
        .updateTable('admissions')
        .set({ spent_by: node })
        .where('digest', '=', admission.digest)
        .where('spent_by', 'is', payload.replaces ?? null),
      expectRows: 1,
    };
    await store.write([
      spend,
      ...entries.appendWrites({ kind: 'enrol', digest, envelope, at, node }),
      ...(replaced === undefined ? [] : replaceWrites(store.db, replaced, node)),
      ...joinWrites(store.db, verifier, enrolment, at),
      // Another machine in its place has a chain of its own.
      ...(replaced === undefined || payload.replaces === undefined
        ? []
        : [inheritReceiptsWrite(store.db, replaced, node)]),
      authority.unchangedWrite(judgedUnder),
    ]);
  }

  #nowSeconds(): number {
    return Math.floor(this.#deps.nowMs() / 1000);
  }
}

/** Nothing but what the log says. */
function asEnrolled(view: NodeView, { facts, bootId }: EnrolStatement['payload']): NodeView {
  const { authoritySeq: _, ...rest } = view;
  return {
    ...rest,
    ...{ state: 'ready', facts, bootId, uptimeMs: 0, lastReportAt: null, free: freeOf(facts) },
  };
}
