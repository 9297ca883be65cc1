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
  type LogInclusion,
  type NodeView,
  type Page,
  type Signer,
  verifyEnrolment,
  verifyEnrolStatement,
  verifyReport,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { TestLog } from '@hypha/testkit';
import type { LedgerPort, LogProofs } from '../src/index.ts';

/** The rules of a ledger without its sockets and its disk. */
export class MemoryLedger implements LedgerPort, LogProofs {
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
  /** The same once, for an enrolment. */
  losesNextEnrolment = false;
  /** Reports with this seq are refused for good. */
  unacceptableSeq: number | undefined;
  readonly #challenges = new Set<string>();
  readonly #enrolments: {
    readonly index: number;
    readonly node: string;
    readonly envelope: Envelope;
  }[] = [];
  #drawn = 0;
  /** What its proofs are over. */
  log: TestLog;

  /** @param ledgerKey default: one that no authority names */
  constructor(authority: Authority, ledgerKey: Signer = generateKey().signer) {
    this.authorityState = authority;
    this.log = new TestLog(ledgerKey, authority.updates);
  }

  async checkpoint(): Promise<{ readonly checkpoint: string }> {
    return this.#answer('checkpoint', () => ({ checkpoint: this.log.checkpoint() }));
  }

  async inclusion(query: {
    readonly digest: string;
    readonly size: number;
  }): Promise<LogInclusion> {
    const found = this.#enrolments.find(
      ({ envelope }) => envelopeDigest(nodeVerifier, envelope, 'enrol') === query.digest,
    );
    if (found === undefined) throw new HyphaError('E_NOT_FOUND', 'no such entry');
    return await this.log.inclusion(found.index, query.size);
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
      const findNodeKey = (id: string) => {
        const record = this.nodes.get(id);
        return record === undefined ? undefined : fromBase64(record.publicKey);
      };
      const authority = this.authorityState;
      const statement = verifyEnrolStatement(nodeVerifier, { envelope, authority, findNodeKey });
      const known = this.nodes.get(statement.node);
      if (known !== undefined) return this.#comeBack(known, statement.payload);
      const { node, publicKey, payload, admission } = verifyEnrolment(nodeVerifier, {
        ...{ envelope, authority },
        // It keeps no record of who stands under what.
        findReplaced: (id) => {
          const publicKey = findNodeKey(id);
          const { admission = envelope } = statement.payload;
          const digest = envelopeDigest(nodeVerifier, admission, 'admission');
          return publicKey === undefined ? undefined : { publicKey, admission: digest };
        },
        profile: 'accept',
        nowSeconds: Math.floor(Date.now() / 1000),
      });
      this.#spend(payload.challenge);
      if (payload.replaces !== undefined) this.#retire(payload.replaces, node);
      else if (this.spentTokens.has(admission.digest))
        throw new HyphaError('E_TOKEN', 'token was spent');
      this.#enrolments.push({ index: this.log.append(envelope), node, envelope });
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
    const { kind, node } = query;
    return this.#answer('listEntries', () => {
      const enrolments = this.#enrolments.filter((entry) => entry.node === node);
      const found = kind === 'admission' ? this.admissions : enrolments.map((e) => e.envelope);
      const items = found.map((envelope, index) => {
        const digest = envelopeDigest(nodeVerifier, envelope, kind);
        return { index, at: 0, kind, digest, leafHash: digest, envelope };
      });
      return { items, nextCursor: null };
    });
  }

  #retire(id: string, replacedBy: string): void {
    const record = this.nodes.get(id);
    if (record === undefined || record.state === 'revoked')
      throw new HyphaError('E_KEY_REVOKED', `${id} was replaced`);
    this.nodes.set(id, { ...record, state: 'revoked', replacedBy });
  }

  #comeBack(known: NodeView, { sealKey, challenge }: EnrolPayload): NodeView {
    if (known.state === 'revoked')
      throw new HyphaError('E_KEY_REVOKED', `${known.id} was replaced`);
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
    const isLost = this.losesAnswers || (name === 'enrol' && this.losesNextEnrolment);
    if (name === 'enrol') this.losesNextEnrolment = false;
    if (isLost) throw new HyphaError('E_UNAVAILABLE', `answer to ${name} was lost`);
    return value;
  }
}
