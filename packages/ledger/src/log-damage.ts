import { HyphaError } from '@hypha/protocol';

/** The stored log is not what it was: nothing of it may be served. `evidence`: lines for whoever looks into it. */
export class LogDamage extends HyphaError {
  readonly evidence: readonly string[];

  constructor(
    message: string,
    options: { readonly evidence?: readonly string[]; readonly cause?: unknown } = {},
  ) {
    const { evidence = [], cause } = options;
    super('E_PROOF', message, {
      hint: 'keep this state folder as evidence and put back the newest copy of it that is whole',
      ...(cause === undefined ? {} : { cause }),
      details: { evidence },
    });
    this.name = 'LogDamage';
    this.evidence = evidence;
  }
}
