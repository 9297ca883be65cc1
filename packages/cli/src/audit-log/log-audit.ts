/** The whole log, read once and checked as it goes by: what stands in it, and whether it is complete (G7). */
import type { LedgerClient } from '@hypha/client';
import {
  type Authority,
  type Checkpoint,
  checkpointOrigin,
  HyphaError,
  hex,
  isHyphaError,
  type LogEntry,
  type Verifier,
  verifyCheckpoint,
} from '@hypha/protocol';
import { type AuditedEntry, EntryAuditor, type LogFault } from './entry-auditor.ts';

const PAGE_ENTRIES = 500;
/** More say nothing new: the log is not to be believed. */
export const FAULTS_MAX = 100;

export interface LogVerdict {
  readonly complete: boolean;
  /** Entries read. */
  readonly size: number;
  /** What the ledger signed, when it could be believed. */
  readonly checkpoint: Checkpoint | null;
  /** The first ones; bounded. */
  readonly faults: readonly LogFault[];
}

interface Deps {
  readonly ledger: Pick<LedgerClient, 'listEntries' | 'checkpoint'>;
  readonly verifier: Verifier;
  readonly genesisHash: string;
  /** The newest the ledger shows: names the key that signs checkpoints. */
  readonly authority: Authority;
  /** Seen before: what was the log then has to be its beginning now. */
  readonly remembered: Checkpoint | null;
}

export class LogAudit {
  readonly #deps: Deps;
  readonly #auditor: EntryAuditor;
  readonly #faults: LogFault[] = [];
  #checkpoint: Checkpoint | null = null;
  /** Root over as many entries as the remembered checkpoint had. */
  #rootThen: string | undefined;

  constructor(deps: Deps) {
    this.#deps = deps;
    this.#auditor = new EntryAuditor(deps.verifier, deps.genesisHash);
  }

  nameOf(id: string): string {
    return this.#auditor.nameOf(id);
  }

  /** As of the entries read so far. */
  get authority(): Authority | undefined {
    return this.#auditor.authority;
  }

  /** Entries that hold, page by page, oldest first; afterwards `verdict` says whether that was all. */
  async *pages(): AsyncGenerator<readonly AuditedEntry[]> {
    this.#checkpoint = await this.#readCheckpoint();
    const size = this.#checkpoint?.size ?? Number.MAX_SAFE_INTEGER;
    let cursor: string | undefined;
    do {
      const page = await this.#deps.ledger.listEntries({ cursor, limit: PAGE_ENTRIES });
      const audited = page.items.flatMap((entry) => (entry.index < size ? this.#take(entry) : []));
      yield audited;
      // A page of nothing that promises more would go on for ever.
      cursor = page.items.length === 0 ? undefined : (page.nextCursor ?? undefined);
    } while (cursor !== undefined && this.#auditor.size < size && this.#faults.length < FAULTS_MAX);
  }

  /** Call when `pages` has ended. */
  verdict(): LogVerdict {
    const faults = [...this.#faults, ...this.#endFaults()].slice(0, FAULTS_MAX);
    const { size } = this.#auditor;
    return { complete: faults.length === 0, size, checkpoint: this.#checkpoint, faults };
  }

  #take(entry: LogEntry): readonly AuditedEntry[] {
    const { audited, faults } = this.#auditor.take(entry);
    this.#faults.push(...faults);
    if (this.#auditor.size === this.#deps.remembered?.size) {
      const root = this.#auditor.root();
      this.#rootThen = root === undefined ? undefined : hex(root);
    }
    return audited === null ? [] : [audited];
  }

  async #readCheckpoint(): Promise<Checkpoint | null> {
    const { ledger, verifier, authority, genesisHash } = this.#deps;
    try {
      const { ledgerKey } = authority;
      if (ledgerKey === undefined)
        throw new HyphaError('E_CHECKPOINT', 'the authority names no key of the ledger');
      const { checkpoint: note } = await ledger.checkpoint();
      const origin = checkpointOrigin(genesisHash);
      return verifyCheckpoint(verifier, note, { origin, publicKey: ledgerKey.publicKey });
    } catch (error) {
      if (!isHyphaError(error)) throw error;
      this.#faults.push({ index: 0, code: error.code, message: error.message });
      return null;
    }
  }

  #endFaults(): LogFault[] {
    const checkpoint = this.#checkpoint;
    if (checkpoint === null) return [];
    const faults: LogFault[] = [];
    const { size } = this.#auditor;
    const add = (code: string, message: string) => faults.push({ index: size, code, message });
    if (size < checkpoint.size)
      add('E_PROOF', `entries ${size} to ${checkpoint.size - 1} are missing at the end`);
    const root = this.#auditor.root();
    if (size === checkpoint.size && root !== undefined && hex(root) !== checkpoint.root)
      add(
        'E_PROOF',
        `the ${size} entries have the root ${hex(root)}, the ledger signed ${checkpoint.root}: an entry was changed or left out`,
      );
    const { seq, head } = checkpoint.authority;
    const authority = this.#auditor.authority;
    if (size === checkpoint.size && (authority?.seq !== seq || authority.head !== head))
      add(
        'E_LOG_FORK',
        `the ledger signed authority update ${seq} as the newest, the log ends at ${authority?.seq ?? 'none'}`,
      );
    return [...faults, ...this.#forkFaults(checkpoint)];
  }

  #forkFaults(checkpoint: Checkpoint): LogFault[] {
    const { remembered } = this.#deps;
    if (remembered === null) return [];
    const fault = (message: string): LogFault[] => [
      { index: remembered.size, code: 'E_LOG_FORK', message },
    ];
    const seen = `the checkpoint of ${remembered.size} entries seen at ${dateOf(remembered.time)}`;
    if (checkpoint.size < remembered.size)
      return fault(`the log has ${checkpoint.size} entries now, fewer than ${seen}`);
    if (this.#rootThen === undefined || this.#rootThen === remembered.root) return [];
    return fault(
      `its first ${remembered.size} entries have the root ${this.#rootThen}, not ${remembered.root} as in ${seen}: history was rewritten`,
    );
  }
}

export function dateOf(epochSeconds: number): string {
  return new Date(epochSeconds * 1000).toISOString();
}
