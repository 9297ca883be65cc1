import {
  base64,
  type Envelope,
  type NodeFacts,
  type NodeId,
  type Signer,
  signEnrolment,
} from '@hypha/protocol';
import type { Boot } from './boot.ts';
import type { Clock } from './clock.ts';
import type { LedgerPort } from './ledger-port.ts';

interface StatementDeps {
  readonly keys: { readonly signer: Signer };
  readonly facts: () => Promise<NodeFacts>;
  readonly boot: Pick<Boot, 'bootId'>;
  readonly clock: Pick<Clock, 'nowMs'>;
}

interface StatementParts {
  /** Raw X25519 key. */
  readonly sealKey: Uint8Array;
  readonly admission?: Envelope;
  /** Raw token secret, base64url. */
  readonly token?: string;
  /** The node whose place the key takes, and its key. */
  readonly replaced?: { readonly node: NodeId; readonly signer: Signer };
  readonly signal: AbortSignal;
}

/** What a node says of itself, in answer to a fresh challenge of the ledger. */
export async function signStatement(
  { keys: { signer }, facts, boot, clock }: StatementDeps,
  ledger: Pick<LedgerPort, 'challenge'>,
  { sealKey, admission, token, replaced, signal }: StatementParts,
): Promise<Envelope> {
  const measured = await facts();
  const { challenge } = await ledger.challenge({ signal });
  return signEnrolment(
    {
      v: 1,
      publicKey: base64(signer.publicKey),
      sealKey: base64(sealKey),
      ...(admission === undefined ? {} : { admission }),
      ...(token === undefined ? {} : { token }),
      ...(replaced === undefined ? {} : { replaces: replaced.node }),
      challenge,
      bootId: boot.bootId,
      iat: Math.floor(clock.nowMs() / 1000),
      facts: measured,
    },
    signer,
    replaced?.signer,
  );
}
