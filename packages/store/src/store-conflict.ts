import { HyphaError } from '@hypha/protocol';

/**
 * A write list that was not applied because the data was not as it assumed: a statement changed another
 * number of rows than `expectRows`, or a key or constraint stood against it. Nothing of the list remains.
 */
export class StoreConflict extends HyphaError {
  /** Position in the list of the write that failed, from 0. */
  readonly position: number;
  readonly reason: 'rows' | 'constraint';

  constructor(position: number, reason: 'rows' | 'constraint', message: string, cause: unknown) {
    super('E_CONFLICT', message, { cause });
    this.name = 'StoreConflict';
    this.position = position;
    this.reason = reason;
  }
}

export function isStoreConflict(error: unknown): error is StoreConflict {
  return error instanceof StoreConflict;
}
