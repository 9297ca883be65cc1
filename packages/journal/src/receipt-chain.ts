import {
  canonicalBytes,
  digestOf,
  type Envelope,
  PAYLOAD_TYPES,
  type ReceiptPayload,
  type Signer,
  signEnvelope,
  type Verifier,
} from '@hypha/protocol';
import { PreparedQuery, rowOf, type Store, type Write } from '@hypha/store';
import type { Selectable } from 'kysely';
import type { JournalTables } from './journal-schema.ts';

export interface SignedReceipt {
  readonly seq: number;
  readonly digest: string;
  readonly envelope: Envelope;
}

/**
 * This node's receipts, each naming the one before it. The end of the chain is kept in memory, so receipts
 * of many runs can be signed while the writes of others are under way; each write demands that the stored
 * end is the one it was signed on, and whoever loses signs again.
 */
export class ReceiptChain {
  readonly #store: Store<JournalTables>;
  readonly #signer: Signer;
  readonly #verifier: Verifier;
  readonly #advance: PreparedQuery<{ seq: number; digest: string; seqBefore: number }>;
  readonly #insert: PreparedQuery<Selectable<JournalTables['receipt']>>;
  #end: { seq: number; digest: string | null } | undefined;

  constructor(deps: { store: Store<JournalTables>; signer: Signer; verifier: Verifier }) {
    this.#store = deps.store;
    this.#signer = deps.signer;
    this.#verifier = deps.verifier;
    const { db } = deps.store;
    this.#advance = new PreparedQuery((value) =>
      db
        .updateTable('meta')
        .set({ receiptSeq: value('seq'), receiptDigest: value('digest') })
        .where('receiptSeq', '=', value('seqBefore')),
    );
    this.#insert = new PreparedQuery((value) =>
      db.insertInto('receipt').values(rowOf(value, ['seq', 'run', 'digest', 'envelope'])),
    );
  }

  /** Its end is in memory: `sign` may be called now. */
  get isKnown(): boolean {
    return this.#end !== undefined;
  }

  /** Reads the stored end when it is not known. */
  async refresh(): Promise<void> {
    while (this.#end === undefined) {
      const meta = await this.#store.db
        .selectFrom('meta')
        .select(['receiptSeq', 'receiptDigest'])
        .executeTakeFirstOrThrow();
      this.#end ??= { seq: meta.receiptSeq, digest: meta.receiptDigest };
    }
  }

  /** After a failed write: the end in memory may not have been reached. */
  forget(): void {
    this.#end = undefined;
  }

  /** Call only while `isKnown`. The writes go with the event they prove. */
  sign(payload: Omit<ReceiptPayload, 'seq' | 'prev'>): {
    receipt: SignedReceipt;
    writes: readonly Write[];
  } {
    const end = this.#end;
    if (end === undefined) throw new Error('the receipt chain was not refreshed');
    const seq = end.seq + 1;
    const whole: ReceiptPayload = { ...payload, prev: end.digest, seq };
    const bytes = canonicalBytes(whole);
    const envelope = signEnvelope('receipt', bytes, [this.#signer]);
    const digest = digestOf(this.#verifier, PAYLOAD_TYPES.receipt, bytes);
    this.#end = { seq, digest };
    const row = { seq, run: payload.run, digest, envelope: JSON.stringify(envelope) };
    return {
      receipt: { seq, digest, envelope },
      writes: [
        { query: this.#advance.with({ seq, digest, seqBefore: end.seq }), expectRows: 1 },
        { query: this.#insert.with(row) },
      ],
    };
  }
}
