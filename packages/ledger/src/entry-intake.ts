import {
  type Envelope,
  envelopeDigest,
  fromBase64,
  HyphaError,
  isHyphaError,
  type LogAppended,
  PAYLOAD_TYPES,
  type Verifier,
  verifyAdmission,
  verifyReceipt,
} from '@hypha/protocol';
import { isStoreConflict, type Store, type Write } from '@hypha/store';
import { z } from 'zod';
import type { AuthorityChain } from './authority-chain.ts';
import type { LedgerDb } from './ledger-schema.ts';
import type { LogEntries } from './log-entries.ts';
import type { NodeRegistry } from './node-registry.ts';
import { ReceiptChains } from './receipt-chains.ts';

type Appended = z.infer<typeof LogAppended>;
const AppendedRow = z.object({ position: z.int() });

interface Deps {
  readonly store: Store<LedgerDb>;
  readonly entries: LogEntries;
  readonly authority: AuthorityChain;
  readonly nodes: NodeRegistry;
  readonly verifier: Verifier;
  readonly nowMs: () => number;
}

/** What may be appended from outside: admissions by admins, receipts by enrolled nodes. */
export class EntryIntake {
  readonly #deps: Deps;
  readonly #chains: ReceiptChains;

  constructor(deps: Deps) {
    this.#deps = deps;
    this.#chains = new ReceiptChains(deps.store);
  }

  /**
   * Durable when it resolves. What is there already is `existing`, also when its signer could not append it
   * any more.
   * @throws HyphaError `E_PAYLOAD_TYPE`, the codes of `verifyAdmission` and `verifyReceipt`, `E_UNKNOWN_KEY`,
   *   `E_KEY_REVOKED`, `E_CONFLICT` when a token hash was used by another admission, or a receipt is not
   *   the next one of its node
   */
  async append(envelope: Envelope): Promise<Appended> {
    const kind = kindOf(envelope);
    const digest = envelopeDigest(this.#deps.verifier, envelope, kind);
    const existing = await this.#findAppended(digest);
    if (existing !== undefined) return existing;
    try {
      const writes =
        kind === 'admission'
          ? this.#admissionWrites(envelope)
          : await this.#receiptWrites(envelope);
      // The first write is the entry's.
      const [appended] = await this.#deps.store.write(writes);
      const { position } = AppendedRow.parse(appended?.rows[0]);
      return { index: position, digest, existing: false };
    } catch (error) {
      const isTaken = isStoreConflict(error);
      const twin =
        isTaken || isHyphaError(error, 'E_CONFLICT') ? await this.#findAppended(digest) : undefined;
      if (twin !== undefined) return twin;
      if (!isTaken) throw error;
      const [what, path] =
        kind === 'admission'
          ? [`another admission has the token of ${digest}`, 'tokenHash']
          : [`another receipt of its node came before ${digest}`, 'seq'];
      throw new HyphaError('E_CONFLICT', what, { cause: error, where: { path } });
    }
  }

  async #findAppended(digest: string): Promise<Appended | undefined> {
    const found = await this.#deps.entries.findByDigest(digest);
    return found === undefined ? undefined : { index: found.position, digest, existing: true };
  }

  #admissionWrites(envelope: Envelope): Write[] {
    const { verifier, authority, store, entries, nowMs } = this.#deps;
    const at = nowMs();
    const { payload, digest } = verifyAdmission(verifier, {
      envelope,
      authority: authority.current,
      profile: 'accept',
      nowSeconds: Math.floor(at / 1000),
    });
    const { node, tokenHash } = payload;
    return [
      ...entries.appendWrites({
        ...{ kind: 'admission', digest, envelope, at },
        ...(node === undefined ? {} : { node }),
      }),
      {
        query: store.db
          .insertInto('admissions')
          .values({ digest, token_hash: tokenHash ?? digest, spent_by: null }),
        expectRows: 1,
      },
    ];
  }

  async #receiptWrites(envelope: Envelope): Promise<Write[]> {
    const { verifier, nodes, entries, nowMs } = this.#deps;
    const keyid = envelope.signatures[0]?.keyid ?? '';
    const row = await nodes.findByKey(keyid);
    if (row === undefined) {
      throw new HyphaError('E_UNKNOWN_KEY', `no node with the key ${keyid} has enrolled`, {
        where: { path: 'signatures.0.keyid' },
        hint: 'receipts are signed by the key of an enrolled node',
      });
    }
    const publicKey = fromBase64(row.public_key);
    const { payload, digest } = verifyReceipt(verifier, { envelope, publicKey });
    if (row.revoked === 1) {
      throw new HyphaError('E_KEY_REVOKED', `node ${row.id} was revoked`, {
        where: { path: 'signatures.0.keyid' },
      });
    }
    const { run, node } = payload;
    return [
      ...entries.appendWrites({ kind: 'receipt', digest, envelope, at: nowMs(), run, node }),
      ...(await this.#chains.extendWrites(payload, digest)),
    ];
  }
}

function kindOf(envelope: Envelope): 'admission' | 'receipt' {
  switch (envelope.payloadType) {
    case PAYLOAD_TYPES.admission:
      return 'admission';
    case PAYLOAD_TYPES.receipt:
      return 'receipt';
    default:
      throw new HyphaError(
        'E_PAYLOAD_TYPE',
        `cannot append an envelope of ${JSON.stringify(envelope.payloadType)}`,
        {
          where: { path: 'payloadType' },
          hint: 'append admissions and receipts here, authority updates at /v1/authority',
        },
      );
  }
}
