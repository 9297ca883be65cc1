/** Grants and admissions as the CLI makes them. */
import { randomBytes } from 'node:crypto';
import {
  base64,
  base64url,
  buildAdmissionPayload,
  type Entropy,
  type Envelope,
  formatJoinToken,
  type Grant,
  type Role,
  type Signer,
  signAdmission,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';

const DAY_SECONDS = 86_400;

export function systemEntropy(nowMs: number): Entropy {
  return { nowMs, randomBytes: (count) => new Uint8Array(randomBytes(count)) };
}

/** A grant for everything, which callers narrow. Valid from now for `days`. */
export function grantOf(options: {
  publicKey: Uint8Array;
  name: string;
  role: Role;
  nowSeconds: number;
  days: number;
  realms?: string[];
  caps?: string[];
  nodes?: string[];
}): Grant {
  return {
    publicKey: base64(options.publicKey),
    name: options.name,
    role: options.role,
    realms: options.realms ?? ['*'],
    caps: options.caps ?? ['*'],
    nodes: options.nodes ?? ['*'],
    limits: null,
    // A node's clock may be a little behind ours.
    notBefore: options.nowSeconds - 60,
    notAfter: options.nowSeconds + options.days * DAY_SECONDS,
  };
}

/** A signed admission and the token that spends it (design §8). The secret is only in the token. */
export function admitNode(options: {
  admin: Signer;
  name: string;
  labels: Record<string, string>;
  realms: string[];
  nowMs: number;
  lifetimeSeconds: number;
  genesis: string;
  ledger: string;
  coordinator: string;
}): { admission: Envelope; token: string; expiresAt: number } {
  const { name, labels, realms, lifetimeSeconds, genesis, ledger, coordinator } = options;
  const { payload, token } = buildAdmissionPayload(
    nodeVerifier,
    { name, labels, realms, lifetimeSeconds },
    systemEntropy(options.nowMs),
  );
  const admission = signAdmission(payload, options.admin);
  return {
    admission,
    token: formatJoinToken({ secret: base64url(token), genesis, ledger, coordinator, admission }),
    expiresAt: payload.exp,
  };
}
