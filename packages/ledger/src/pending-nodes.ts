import {
  base64,
  type EnrolStatement,
  HyphaError,
  keyIdOf,
  type NodeView,
  type Verifier,
} from '@hypha/protocol';
import { addressKey } from '@hypha/service';
import { LEDGER_LIMITS as LIMITS } from './ledger-limits.ts';

interface PendingNode {
  readonly statement: EnrolStatement;
  /** Whose share it is in: see `addressKey`. */
  readonly origin: string;
  readonly firstHeardAt: number;
  readonly heardAt: number;
}

/**
 * Nodes that ask to be let in, for an admin to look at. They have proven their key and nothing else, so they are
 * kept in memory, bounded in all and for each address, and never in the log. A node asks again
 * until it is admitted: after a restart of the ledger they are back within its next attempt.
 */
export class PendingNodes {
  readonly #verifier: Verifier;
  readonly #nowMs: () => number;
  readonly #isRevoked: (node: string) => boolean;
  /** By node id, in the order in which they were last heard. */
  readonly #waiting = new Map<string, PendingNode>();

  constructor(deps: {
    readonly verifier: Verifier;
    readonly nowMs: () => number;
    readonly isRevoked: (node: string) => boolean;
  }) {
    this.#verifier = deps.verifier;
    this.#nowMs = deps.nowMs;
    this.#isRevoked = deps.isRevoked;
  }

  /** Keeps the newest request of a node. Throws `E_RATE` when too many wait. */
  keep(statement: EnrolStatement, address: string): void {
    this.#forget();
    const { node } = statement;
    const known = this.#waiting.get(node);
    const origin = known?.origin ?? addressKey(address);
    if (known === undefined) this.#checkRoom(node, origin);
    const heardAt = this.#nowMs();
    this.#waiting.delete(node);
    this.#waiting.set(node, {
      statement,
      origin,
      firstHeardAt: known?.firstHeardAt ?? heardAt,
      heardAt,
    });
  }

  drop(node: string): void {
    this.#waiting.delete(node);
  }

  /** By name. */
  list(): readonly NodeView[] {
    this.#forget();
    return [...this.#waiting.values()]
      .filter(({ statement }) => !this.#isRevoked(statement.node))
      .map((waiting) => this.#view(waiting))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Nobody has named it yet: what stands for a name is made of its id. */
  #view({ statement, firstHeardAt, heardAt }: PendingNode): NodeView {
    const { node, publicKey, payload } = statement;
    return {
      id: node,
      name: `pending-${node.slice('node_'.length)}`,
      state: 'pending',
      labels: {},
      realms: [],
      keyid: keyIdOf(this.#verifier, publicKey),
      publicKey: base64(publicKey),
      sealKey: payload.sealKey,
      enrolledAt: firstHeardAt,
      lastReportAt: heardAt,
      bootId: payload.bootId,
      uptimeMs: 0,
      facts: payload.facts,
      free: { milliCpus: 0, memoryBytes: 0, storageBytes: 0 },
    };
  }

  #checkRoom(node: string, origin: string): void {
    const refuse = (what: string) => {
      throw new HyphaError('E_RATE', `cannot keep ${node} as pending: ${what}`, {
        hint: 'join with a token instead: hypha node add NAME',
      });
    };
    if (this.#waiting.size >= LIMITS.pendingNodes) refuse(`${this.#waiting.size} nodes wait`);
    const near = [...this.#waiting.values()].filter((other) => other.origin === origin).length;
    if (near >= LIMITS.pendingPerAddress) refuse(`${near} nodes of ${origin} wait`);
  }

  #forget(): void {
    const oldest = this.#nowMs() - LIMITS.pendingMs;
    for (const [node, { heardAt }] of this.#waiting) {
      if (heardAt > oldest) return;
      this.#waiting.delete(node);
    }
  }
}
