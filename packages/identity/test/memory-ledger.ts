import {
  type Authority,
  type AuthorityPage,
  base64,
  base64url,
  type EnrolPayload,
  type Envelope,
  envelopeDigest,
  fromBase64,
  HyphaError,
  keyIdOf,
  type LogEntry,
  type NodeView,
  type Page,
  verifyEnrolment,
  verifyEnrolStatement,
  verifyReport,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { LedgerPort } from '../src/index.ts';

/** The rules of a ledger without its sockets and its disk. */
export class MemoryLedger implements LedgerPort {
  authorityState: Authority;
  /** node id → record. */
  readonly nodes = new Map<string, NodeView>();
  readonly spentTokens = new Set<string>();
  /** What the log has of them, whomever they name. */
  readonly admissions: Envelope[] = [];
  readonly reportSeqs: number[] = [];
  /** Calls by name, in order. */
  readonly calls: string[] = [];
  pageSize = 100;
  /** Thrown by every call while it is set. */
  fault: Error | undefined;
  /** The call is carried out and its answer lost. */
  losesAnswers = false;
  /** Reports with this seq are refused for good. */
  unacceptableSeq: number | undefined;
  readonly #challenges = new Set<string>();
  #drawn = 0;

  constructor(authority: Authority) {
    this.authorityState = authority;
  }

  async challenge(): Promise<{ readonly challenge: string }> {
    return this.#answer('challenge', () => {
      const challenge = base64url(new Uint8Array(16).fill(++this.#drawn));
      this.#challenges.add(challenge);
      return { challenge };
    });
  }

  async enrol(envelope: Envelope): Promise<NodeView> {
    return this.#answer('enrol', () => {
      const statement = verifyEnrolStatement(nodeVerifier, {
        envelope,
        authority: this.authorityState,
      });
      const known = this.nodes.get(statement.node);
      if (known !== undefined) return this.#comeBack(known, statement.payload);
      const { node, publicKey, payload, admission } = verifyEnrolment(nodeVerifier, {
        envelope,
        authority: this.authorityState,
        profile: 'accept',
        nowSeconds: Math.floor(Date.now() / 1000),
      });
      this.#spend(payload.challenge);
      if (this.spentTokens.has(admission.digest))
        throw new HyphaError('E_TOKEN', 'token was spent');
      this.spentTokens.add(admission.digest);
      const { name, labels, realms } = admission.payload;
      const { facts, bootId } = payload;
      const record: NodeView = {
        ...{ id: node, name, state: 'ready', labels, realms, facts, bootId },
        keyid: keyIdOf(nodeVerifier, publicKey),
        publicKey: base64(publicKey),
        sealKey: payload.sealKey,
        enrolledAt: Date.now(),
        lastReportAt: null,
        uptimeMs: 0,
        free: { milliCpus: 0, memoryBytes: 0, storageBytes: 0 },
      };
      this.nodes.set(node, record);
      return record;
    });
  }

  async listEntries(query: {
    readonly kind: 'admission' | 'enrol';
    readonly node: string;
  }): Promise<Page<LogEntry>> {
    return this.#answer('listEntries', () => {
      const items = this.admissions.map((envelope, index) => {
        const digest = envelopeDigest(nodeVerifier, envelope, 'admission');
        return { index, at: 0, kind: 'admission', digest, leafHash: digest, envelope };
      });
      return { items: query.kind === 'admission' ? items : [], nextCursor: null };
    });
  }

  #comeBack(known: NodeView, { sealKey, challenge }: EnrolPayload): NodeView {
    if (known.sealKey === sealKey) return known;
    this.#spend(challenge);
    const next = { ...known, sealKey };
    this.nodes.set(known.id, next);
    return next;
  }

  #spend(challenge: string): void {
    if (!this.#challenges.delete(challenge))
      throw new HyphaError('E_CHALLENGE', 'challenge is not open');
  }

  async report(node: string, reports: readonly Envelope[]): Promise<{ readonly seq: number }> {
    return this.#answer('report', () => {
      const record = this.nodes.get(node);
      if (record === undefined) throw new HyphaError('E_NOT_FOUND', 'no such node');
      const publicKey = fromBase64(record.publicKey);
      const seqs = reports.map(
        (envelope) => verifyReport(nodeVerifier, { envelope, publicKey }).payload.seq,
      );
      if (this.unacceptableSeq !== undefined && seqs.includes(this.unacceptableSeq))
        throw new HyphaError('E_PAYLOAD', 'cannot read that report');
      const newest = this.reportSeqs.at(-1) ?? 0;
      this.reportSeqs.push(...seqs.filter((seq) => seq > newest));
      return { seq: this.reportSeqs.at(-1) ?? 0 };
    });
  }

  async authority({ since = -1 }: { since?: number } = {}): Promise<AuthorityPage> {
    return this.#answer('authority', () => {
      const { updates, seq, head } = this.authorityState;
      const items = updates.slice(since + 1, since + 1 + this.pageSize);
      return { items, head: { seq, hash: head } };
    });
  }

  #answer<T>(name: string, answer: () => T): T {
    this.calls.push(name);
    if (this.fault !== undefined) throw this.fault;
    const value = answer();
    if (this.losesAnswers) throw new HyphaError('E_UNAVAILABLE', `answer to ${name} was lost`);
    return value;
  }
}
