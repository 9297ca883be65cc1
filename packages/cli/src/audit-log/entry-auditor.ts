/**
 * Reads a log entry by entry and judges each by those before it, as a node would: the authority from the
 * pinned genesis, admissions by admins of then, enrolments under admissions, receipts by enrolled nodes.
 * What the ledger says of an entry is not believed; what the entry's signatures say is.
 */
import {
  type AdmissionPayload,
  Authority,
  AuthorityPayload,
  canonicalBytes,
  type EnrolPayload,
  type EnrolStatement,
  type Envelope,
  findUsableKey,
  fromBase64,
  HyphaError,
  isHyphaError,
  keyIdOf,
  type LogEntry,
  leafHash,
  openEnvelope,
  PAYLOAD_TYPES,
  type PayloadKind,
  parseStrictJson,
  type ReceiptPayload,
  type Verifier,
  verifyAdmission,
  verifyEnrolment,
  verifyEnrolStatement,
  verifyReceipt,
} from '@hypha/protocol';
import { MerkleFrontier } from './merkle-frontier.ts';

/** What an entry states, once it held. */
export type Statement =
  | { readonly kind: 'authority'; readonly payload: AuthorityPayload }
  | { readonly kind: 'admission'; readonly payload: AdmissionPayload }
  | {
      readonly kind: 'enrol';
      readonly payload: EnrolPayload;
      readonly node: string;
      /** It was a node before: it only told another sealing key. */
      readonly isKnown: boolean;
    }
  | { readonly kind: 'receipt'; readonly payload: ReceiptPayload };

export interface AuditedEntry {
  readonly index: number;
  readonly digest: string;
  /** Whose signatures are on it. */
  readonly keyids: readonly string[];
  readonly statement: Statement;
}

/** One thing that is missing or does not hold. */
export interface LogFault {
  readonly index: number;
  readonly code: string;
  readonly message: string;
}

interface KnownNode {
  readonly name: string;
  readonly publicKey: Uint8Array;
  /** Digest of the one it stands under. */
  readonly admission: string;
  /** Of its newest receipt. */
  readonly receipt: { readonly seq: number; readonly digest: string } | null;
  /** The key that has its place now. */
  readonly replacedBy: string | null;
}

export class EntryAuditor {
  readonly #verifier: Verifier;
  readonly #genesisHash: string;
  readonly #tree: MerkleFrontier;
  readonly #names = new Map<string, string>();
  /** node id → what its enrolment says. */
  readonly #nodes = new Map<string, KnownNode>();
  /** Digests of admissions. */
  readonly #admissions = new Set<string>();
  #authority: Authority | undefined;
  #next = 0;
  #whole = true;

  constructor(verifier: Verifier, genesisHash: string) {
    this.#verifier = verifier;
    this.#genesisHash = genesisHash;
    this.#tree = new MerkleFrontier(verifier);
  }

  /** As of the newest update that was read and held; undefined before the genesis. */
  get authority(): Authority | undefined {
    return this.#authority;
  }

  /** Entries read, the missing ones counted. */
  get size(): number {
    return this.#next;
  }

  /** Over the entries read; undefined once one was missing. */
  root(): Uint8Array | undefined {
    return this.#whole ? this.#tree.root() : undefined;
  }

  /** A key or node by the name the log gives it, else the id itself. */
  nameOf(id: string): string {
    return this.#names.get(id) ?? this.#nodes.get(id)?.name ?? id;
  }

  /** Takes the next entry; faults say what is wrong with it or missing before it. */
  take(entry: LogEntry): { readonly audited: AuditedEntry | null; readonly faults: LogFault[] } {
    const faults = this.#takePlace(entry);
    if (entry.index < this.#next - 1) return { audited: null, faults };
    try {
      const audited = this.#judge(entry);
      return { audited, faults: [...faults, ...this.#receiptFaults(audited)] };
    } catch (error) {
      if (!isHyphaError(error)) throw error;
      return { audited: null, faults: [...faults, faultOf(entry.index, error)] };
    }
  }

  #takePlace({ index, envelope }: LogEntry): LogFault[] {
    const expected = this.#next;
    if (index < expected) {
      this.#whole = false;
      const message = `entry ${index} comes after entry ${expected - 1}: out of order, or twice`;
      return [{ index, code: 'E_PROOF', message }];
    }
    this.#next = index + 1;
    this.#tree.append(leafHash(this.#verifier, canonicalBytes(envelope)));
    if (index === expected) return [];
    this.#whole = false;
    const which =
      index - expected === 1 ? `entry ${expected} is` : `entries ${expected} to ${index - 1} are`;
    return [{ index: expected, code: 'E_PROOF', message: `${which} missing` }];
  }

  #judge(entry: LogEntry): AuditedEntry {
    const { index, envelope } = entry;
    const kind = kindOf(entry);
    const { digest } = openEnvelope(this.#verifier, envelope, kind);
    if (digest !== entry.digest) {
      throw new HyphaError('E_DIGEST', `the ledger calls it ${entry.digest}, it is ${digest}`);
    }
    const statement = this.#read(kind, envelope, digest);
    const keyids = envelope.signatures.map(({ keyid }) => keyid);
    return { index, digest, keyids, statement };
  }

  #read(kind: Statement['kind'], envelope: Envelope, digest: string): Statement {
    if (kind === 'authority') return this.#readUpdate(envelope);
    const authority = this.#authority;
    if (authority === undefined)
      throw new HyphaError('E_AUTHORITY', 'it stands before the genesis');
    switch (kind) {
      case 'admission':
        return this.#readAdmission(envelope, digest, authority);
      case 'enrol':
        return this.#readEnrolment(envelope, authority);
      case 'receipt':
        return this.#readReceipt(envelope, authority);
    }
  }

  #readUpdate(envelope: Envelope): Statement {
    const before = this.#authority;
    this.#authority =
      before === undefined
        ? Authority.fromGenesis(this.#verifier, envelope, this.#genesisHash)
        : before.apply(envelope);
    const payload = AuthorityPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
    const { change } = payload;
    if (change.type === 'genesis' || change.type === 'rotate-root') {
      const { rootKeyIds } = this.#authority;
      // In the order they are named.
      for (const [at, { name }] of change.rootKeys.entries())
        this.#names.set(rootKeyIds[at] ?? '', name);
    }
    for (const { keyid, grant } of this.#authority.listKeys()) this.#names.set(keyid, grant.name);
    const { ledgerKey } = this.#authority;
    if (ledgerKey !== undefined) this.#names.set(ledgerKey.keyid, 'the ledger');
    return { kind: 'authority', payload };
  }

  #readAdmission(envelope: Envelope, digest: string, authority: Authority): Statement {
    const { payload, keyids } = verifyAdmission(this.#verifier, {
      envelope,
      authority,
      profile: 'audit',
    });
    // Dated back: whatever it says, it stands behind the revocation.
    for (const keyid of keyids) findUsableKey(authority, keyid);
    this.#admissions.add(digest);
    return { kind: 'admission', payload };
  }

  #readEnrolment(envelope: Envelope, authority: Authority): Statement {
    const input = {
      envelope,
      authority,
      findNodeKey: (node: string) => this.#nodes.get(node)?.publicKey,
    };
    const stated = verifyEnrolStatement(this.#verifier, input);
    // The same key again: it rotates its sealing key, and was let in before.
    const isKnown = this.#nodes.has(stated.node);
    if (!isKnown) this.#join(stated, authority);
    return { kind: 'enrol', payload: stated.payload, node: stated.node, isKnown };
  }

  #join({ node, publicKey, payload, envelope }: EnrolStatement, authority: Authority): void {
    const { admission } = verifyEnrolment(this.#verifier, {
      ...{ envelope, authority, profile: 'audit' },
      findReplaced: (id) => this.#nodes.get(id),
    });
    if (!this.#admissions.has(admission.digest)) {
      throw new HyphaError('E_TOKEN', `the admission of ${node} is not in the log before it`);
    }
    if (payload.replaces === undefined) {
      for (const keyid of admission.keyids) findUsableKey(authority, keyid);
    }
    const { name } = admission.payload;
    const oldId = payload.replaces ?? admission.payload.replaces ?? '';
    const old = this.#nodes.get(oldId);
    if (old !== undefined) this.#nodes.set(oldId, { ...old, replacedBy: node });
    this.#nodes.set(node, {
      ...{ name, publicKey, admission: admission.digest, replacedBy: null },
      receipt: old?.receipt ?? null,
    });
    this.#names.set(keyIdOf(this.#verifier, publicKey), name);
  }

  #readReceipt(envelope: Envelope, authority: Authority): Statement {
    const { payload: bytes } = openEnvelope(this.#verifier, envelope, 'receipt');
    // Read before it is verified only to find the key: with another's it does not hold.
    const { node } = parseStrictJson(bytes) as { readonly node?: unknown };
    const known = this.#nodes.get(String(node));
    if (known === undefined) {
      throw new HyphaError('E_UNKNOWN_KEY', `no node ${String(node)} has enrolled before it`);
    }
    const { payload } = verifyReceipt(this.#verifier, { envelope, publicKey: known.publicKey });
    if (authority.isNodeRevoked(payload.node)) {
      throw new HyphaError('E_KEY_REVOKED', `node ${known.name} was revoked before it`);
    }
    if (known.replacedBy !== null) {
      throw new HyphaError(
        'E_KEY_REVOKED',
        `${known.replacedBy} had the place of its node by then`,
      );
    }
    return { kind: 'receipt', payload };
  }

  /** Receipts of a node name the one before: a ledger that leaves one out cannot mend that. */
  #receiptFaults({ index, digest, statement }: AuditedEntry): LogFault[] {
    if (statement.kind !== 'receipt') return [];
    const { node, seq, prev } = statement.payload;
    const known = this.#nodes.get(node);
    if (known === undefined) return [];
    this.#nodes.set(node, { ...known, receipt: { seq, digest } });
    const before = known.receipt;
    // A node whose journal was lost starts again, and says so by naming none.
    if (prev === null || prev === before?.digest) return [];
    const message = `receipt ${seq} of ${known.name} follows one that is missing: the newest before it is ${before === null ? 'none' : before.seq}`;
    return [{ index, code: 'E_CONFLICT', message }];
  }
}

function kindOf({ kind, envelope }: LogEntry): Statement['kind'] {
  const kinds = ['authority', 'admission', 'enrol', 'receipt'] as const satisfies PayloadKind[];
  const found = kinds.find((each) => PAYLOAD_TYPES[each] === envelope.payloadType);
  if (found !== undefined && found === kind) return found;
  throw new HyphaError(
    'E_PAYLOAD_TYPE',
    `the ledger calls it ${kind}, it is ${envelope.payloadType}`,
  );
}

function faultOf(index: number, { code, message }: HyphaError): LogFault {
  return { index, code, message };
}
