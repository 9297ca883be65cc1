import { base64, HyphaError, type NodeFacts } from '@hypha/protocol';
import type { Boot } from './boot.ts';
import type { Clock } from './clock.ts';
import { signStatement } from './enrol-statement.ts';
import type { LedgerPort } from './ledger-port.ts';
import type { NodeKeys } from './node-keys.ts';

export interface SealKeyPublisherDeps {
  readonly keys: Pick<NodeKeys, 'nodeId' | 'signer'> & {
    readonly sealKeys: Pick<NodeKeys['sealKeys'], 'current' | 'publishedAtMs' | 'notePublished'>;
  };
  readonly ledger: Pick<LedgerPort, 'challenge' | 'enrol'>;
  readonly facts: () => Promise<NodeFacts>;
  readonly boot: Pick<Boot, 'bootId'>;
  readonly clock: Pick<Clock, 'nowMs'>;
}

/**
 * Keeps the log's word for the key that secrets are sealed to equal to the node's: an enrol statement by the same
 * node key that names another sealing key. The ledger takes one with a later `iat` than the last, so an
 * older statement, shown again, changes nothing.
 */
export class SealKeyPublisher {
  readonly #deps: SealKeyPublisherDeps;
  /** The ledger was asked since the start: a restored key file says nothing of what is in the log. */
  #isCompared = false;

  constructor(deps: SealKeyPublisherDeps) {
    this.#deps = deps;
  }

  /**
   * Nothing to do once the ledger has the current key. Safe to repeat.
   * @throws HyphaError what the ledger refuses with: `E_KEY_REVOKED`, `E_REPLAY` within a second of the last one
   *   or when this machine's clock went back; `E_UNAVAILABLE`; `E_CONFLICT` when it answers with another key
   */
  async publish(signal: AbortSignal): Promise<void> {
    const { keys, ledger } = this.#deps;
    const { sealKeys, nodeId } = keys;
    if (this.#isCompared && sealKeys.publishedAtMs !== null) return;
    const sealKey = sealKeys.current;
    const statement = await signStatement(this.#deps, ledger, { sealKey, signal });
    const record = await ledger.enrol(statement, { signal });
    if (record.id !== nodeId || record.sealKey !== base64(sealKey)) {
      throw new HyphaError(
        'E_CONFLICT',
        `the ledger answers with ${record.id} and another sealing key than that of ${nodeId}`,
      );
    }
    await sealKeys.notePublished(sealKey);
    this.#isCompared = true;
  }
}
