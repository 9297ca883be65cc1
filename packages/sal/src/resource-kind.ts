/**
 * What the reconciler needs of a kind of resource. It takes no input but the record, so the path after
 * a reboot and the path of normal life are one (design §3).
 */
import type { DesiredResource, Json } from '@hypha/protocol';

export interface ResourceRecord extends DesiredResource {
  readonly realm: string;
  readonly deployment: string;
  /**
   * Of what an unfinished run made: the steps (`<run>/<step>`) that its undo will know it by, should it have to be
   * made again. Absent: nobody will undo it.
   */
  readonly madeBy?: { readonly createdBy: string; readonly lastOp: string };
}

export interface Observed {
  /** `ready`, `running`, `stopped`, `missing`, `failed`, `backing-off`. */
  readonly state: string;
  /** False when `converge` has work to do. */
  readonly converged: boolean;
  readonly addresses: readonly string[];
  readonly info: Json;
}

export interface LogOptions {
  readonly follow: boolean;
  /** Last lines first shown; null: all that is kept. */
  readonly tail: number | null;
  readonly signal: AbortSignal;
}

export interface ResourceKind {
  readonly kind: string;
  /** Reads the world. No effect. */
  observe(record: ResourceRecord, signal: AbortSignal): Promise<Observed>;
  /** Makes it as recorded, or throws. Idempotent; called again with back-off by the reconciler. */
  converge(record: ResourceRecord, signal: AbortSignal): Promise<void>;
  /**
   * Removes it and everything that belonged to it. Idempotent. A kind that holds data removes it only
   * with `deleteData`; otherwise it throws nothing and leaves the data (`retained`).
   */
  remove(
    record: ResourceRecord,
    options: { deleteData: boolean; signal: AbortSignal },
  ): Promise<void>;
  /**
   * After commit: drop what a replace had parked, or what one made that was given up. Idempotent. Throws `E_SAL` while
   * another spec is current.
   */
  settle?(record: ResourceRecord, signal: AbortSignal): Promise<void>;
  /** Stop without forgetting: for a node that shuts everything down. */
  halt?(record: ResourceRecord, signal: AbortSignal): Promise<void>;
  /** Lines of output, oldest first. */
  logs?(record: ResourceRecord, options: LogOptions): AsyncIterable<string>;
  /** Every rid of this kind on the machine, recorded or not: how orphans are found. */
  list(signal: AbortSignal): Promise<readonly { rid: string; label: string }[]>;
}
