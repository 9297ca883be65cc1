import {
  type Checkpoint,
  checkpointOrigin,
  HyphaError,
  hex,
  type Signer,
  signCheckpoint,
  type Verifier,
  verifyCheckpoint,
} from '@hypha/protocol';
import type { Store } from '@hypha/store';
import type { AuthorityChain } from './authority-chain.ts';
import { LEDGER_LIMITS } from './ledger-limits.ts';
import type { LedgerDb } from './ledger-schema.ts';
import { LogDamage } from './log-damage.ts';
import type { LogTree } from './log-tree.ts';

interface Deps {
  readonly store: Store<LedgerDb>;
  readonly tree: LogTree;
  readonly authority: AuthorityChain;
  readonly verifier: Verifier;
  readonly signer: Signer;
  readonly nowMs: () => number;
}

/**
 * Signed heads of the log. One is kept before it is handed out, so that after a restart the log can be held
 * against the newest that anybody has seen.
 */
export class Checkpoints {
  readonly #deps: Deps;
  #newest: { readonly note: string; readonly size: number; readonly atMs: number } | undefined;
  #signing: Promise<string> | undefined;
  /** Of the newest one, epoch seconds. */
  #signedTime = 0;

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  get key(): Signer {
    return this.#deps.signer;
  }

  /**
   * A note of at most a second ago, over everything that was in the log when it was asked for.
   * @throws HyphaError `E_UNAVAILABLE` while the authority does not name this ledger's key
   */
  async newest(): Promise<string> {
    this.#checkNamed();
    const size = await this.#deps.tree.size();
    const newest = this.#newest;
    const age = this.#deps.nowMs() - (newest?.atMs ?? Number.NEGATIVE_INFINITY);
    // A clock that was set back does not keep an old note alive.
    const isRecent = age >= 0 && age < LEDGER_LIMITS.checkpointMs;
    if (newest !== undefined && isRecent && newest.size >= size) return newest.note;
    this.#signing ??= this.#sign().finally(() => {
      this.#signing = undefined;
    });
    return await this.#signing;
  }

  /**
   * Holds the log against the newest checkpoint that was handed out. To be called before anything is served.
   * @throws LogDamage when entries it counted are missing or others
   */
  async check(): Promise<void> {
    const { store, tree, authority } = this.#deps;
    const row = await store.db.selectFrom('log_checkpoint').selectAll().executeTakeFirst();
    if (row === undefined) return;
    const refuse = (reason: string, cause?: unknown) =>
      new LogDamage(`the log is not the one of the newest checkpoint: ${reason}`, {
        evidence: row.note.split('\n'),
        cause,
      });
    let checkpoint: Checkpoint;
    try {
      checkpoint = this.#read(row.note, row.authority_seq);
    } catch (cause) {
      throw refuse('that one cannot be believed any more', cause);
    }
    const { size, root, authority: head } = checkpoint;
    this.#signedTime = checkpoint.time;
    const stored = await tree.size();
    if (stored < size) throw refuse(`entries ${stored} to ${size - 1} are missing`);
    const found = hex(await tree.rootAt(size));
    if (found !== root) {
      throw refuse(`the first ${size} entries have the root ${found}, it says ${root}`);
    }
    if (authority.current.hashAt(head.seq) !== head.head)
      throw refuse(`authority update ${head.seq} is not ${head.head}`);
  }

  async #sign(): Promise<string> {
    const { store, tree, verifier, signer, authority, nowMs } = this.#deps;
    // No update is appended meanwhile: the newest one is the newest below the size that is read.
    return await authority.whileSettled(async ({ seq, head, genesisHash }) => {
      this.#checkNamed();
      const atMs = nowMs();
      const time = this.#timeOf(Math.floor(atMs / 1000));
      const size = await tree.size();
      const root = hex(await tree.rootAt(size));
      const note = signCheckpoint(
        verifier,
        {
          origin: checkpointOrigin(genesisHash),
          size,
          root,
          authority: { seq, head },
          time,
        },
        signer,
      );
      const row = { note, authority_seq: seq };
      await store.write([
        {
          query: store.db
            .insertInto('log_checkpoint')
            .values({ id: 0, ...row })
            .onConflict((conflict) => conflict.column('id').doUpdateSet(row)),
          expectRows: 1,
        },
      ]);
      this.#newest = { note, size, atMs };
      this.#signedTime = time;
      return note;
    });
  }

  /**
   * A later head is not dated before an earlier one when the clock is corrected by a little: to its readers that
   * would look like a history that was cut. After a larger correction it has to be right again.
   */
  #timeOf(seconds: number): number {
    const behind = this.#signedTime - seconds;
    return behind > 0 && behind <= LEDGER_LIMITS.clockStepSecondsMax ? this.#signedTime : seconds;
  }

  /** @param seq of the authority that named the key which signed it */
  #read(note: string, seq: number): Checkpoint {
    const { authority, verifier } = this.#deps;
    const { genesisHash, ledgerKey } = authority.current.at(seq);
    const origin = checkpointOrigin(genesisHash);
    const publicKey = ledgerKey?.publicKey ?? new Uint8Array();
    return verifyCheckpoint(verifier, note, { origin, publicKey });
  }

  #checkNamed(): void {
    const { authority, signer } = this.#deps;
    const { ledgerKey } = authority.current;
    if (ledgerKey?.keyid === signer.keyid) return;
    const named = ledgerKey === undefined ? 'no key of a ledger' : `the key ${ledgerKey.keyid}`;
    throw new HyphaError(
      'E_UNAVAILABLE',
      `cannot sign a checkpoint with ${signer.keyid}: the authority names ${named}`,
      { hint: 'hypha authority set-ledger-key FILE; GET /v1/log/key has the key' },
    );
  }
}
