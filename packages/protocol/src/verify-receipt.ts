import type { z } from 'zod';
import type { Verifier } from './crypto-port.ts';
import type { Envelope } from './dsse.ts';
import { HyphaError } from './hypha-error.ts';
import { nodeIdOf, runIdOf } from './ids.ts';
import { ReportPayload } from './node-payloads.ts';
import { ReceiptPayload } from './receipt-payload.ts';
import { verifyEnvelope } from './verify-envelope.ts';
import { parseJsonAs } from './wire.ts';

/** What a node says of itself, under the key it enrolled with. */
export interface VerifiedStatement<T> {
  readonly payload: T;
  readonly digest: string;
  readonly envelope: Envelope;
}

interface Statement {
  readonly envelope: Envelope;
  /** Raw key of the enrolled node. */
  readonly publicKey: Uint8Array;
}

/**
 * A receipt by this node about a run whose id is derived from envelope and node.
 * @throws HyphaError the codes of `verifyEnvelope`, `E_PAYLOAD`, `E_CONFLICT`
 */
export function verifyReceipt(
  verifier: Verifier,
  statement: Statement,
): VerifiedStatement<ReceiptPayload> {
  const verified = verifyStatement(verifier, statement, 'receipt', ReceiptPayload);
  const { run, envelopeDigest, node } = verified.payload;
  const expected = runIdOf(verifier, envelopeDigest, node);
  if (run !== expected) {
    throw new HyphaError(
      'E_CONFLICT',
      `the receipt names ${run}, its envelope and node give ${expected}`,
      {
        where: { path: 'run' },
      },
    );
  }
  return verified;
}

/** A report of this node about itself. Throws like `verifyReceipt`. */
export function verifyReport(
  verifier: Verifier,
  statement: Statement,
): VerifiedStatement<ReportPayload> {
  return verifyStatement(verifier, statement, 'report', ReportPayload);
}

function verifyStatement<T extends z.ZodType<{ readonly node: string }>>(
  verifier: Verifier,
  { envelope, publicKey }: Statement,
  kind: 'receipt' | 'report',
  schema: T,
): VerifiedStatement<z.infer<T>> {
  const { payload: bytes, digest } = verifyEnvelope(verifier, {
    envelope,
    kind,
    keys: () => publicKey,
  });
  const payload = parseJsonAs(schema, bytes, {
    code: 'E_PAYLOAD',
    what: `the ${kind} ${digest}`,
    integersOnly: true,
  });
  const node = nodeIdOf(verifier, publicKey);
  if (payload.node !== node) {
    throw new HyphaError('E_CONFLICT', `the ${kind} speaks of ${payload.node}, signed by ${node}`, {
      where: { path: 'node' },
    });
  }
  return { payload, digest, envelope };
}
