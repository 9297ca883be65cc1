/** Grants and admissions as the CLI makes them. */
import { randomBytes } from 'node:crypto';
import {
  base64,
  base64url,
  buildAdmissionPayload,
  buildNodeAdmissionPayload,
  type Entropy,
  type Envelope,
  formatJoinToken,
  type Grant,
  type NodeId,
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

/** What an admin says of a node it lets in. */
export interface NodePlace {
  readonly name: string;
  readonly labels: Record<string, string>;
  readonly realms: string[];
  /** The node whose name passes to the new key. */
  readonly replaces?: NodeId | undefined;
  readonly lifetimeSeconds: number;
}

/** A signed admission and the token that spends it (design §8). The secret is only in the token. */
export function admitNode(
  options: NodePlace & {
    readonly admin: Signer;
    readonly nowMs: number;
    readonly genesis: string;
    readonly ledger: string;
    readonly coordinator: string;
  },
): { admission: Envelope; token: string; expiresAt: number } {
  const { admin, nowMs, genesis, ledger, coordinator, ...place } = options;
  const { payload, token } = buildAdmissionPayload(nodeVerifier, place, systemEntropy(nowMs));
  const admission = signAdmission(payload, admin);
  return {
    admission,
    token: formatJoinToken({ secret: base64url(token), genesis, ledger, coordinator, admission }),
    expiresAt: payload.exp,
  };
}

/** A signed admission of the one node with this fingerprint. */
export function admitFingerprint(
  node: NodeId,
  options: NodePlace & { readonly admin: Signer; readonly nowMs: number },
): { admission: Envelope; expiresAt: number } {
  const { admin, nowMs, ...place } = options;
  const payload = buildNodeAdmissionPayload(node, place, nowMs);
  return { admission: signAdmission(payload, admin), expiresAt: payload.exp };
}
