/**
 * Payloads ready to be signed, with the defaults of design §8 filled in. Time and randomness are given,
 * so the same inputs give the same bytes.
 */
import type { Authority } from './authority.ts';
import type { AuthorityChange, AuthorityPayload } from './authority-payload.ts';
import type { CancelPayload } from './cancel-payload.ts';
import type { Verifier } from './crypto-port.ts';
import { base64, base64url, hex, utf8 } from './encoding.ts';
import type { NodeId, RevisionId } from './ids.ts';
import { LIMITS } from './limits.ts';
import type { AdmissionPayload, Labels } from './node-payloads.ts';
import { RunLimits, type ScriptPayload, type ScriptPayloadInput } from './script-payload.ts';

/** What a builder takes from the machine. */
export interface Entropy {
  /** Wall clock, epoch milliseconds. */
  readonly nowMs: number;
  /** Cryptographically strong. */
  readonly randomBytes: (count: number) => Uint8Array;
}

/** What a signer decides; the rest of a script payload is filled in. */
export interface ScriptDraft {
  readonly realm?: string;
  readonly deployment: string;
  readonly generation: number;
  readonly mode?: ScriptPayload['mode'];
  /** Candidates, by node id. */
  readonly nodes: readonly string[];
  /** How many of them run it; default: all. */
  readonly count?: number;
  /** The authority as the signer sees it. */
  readonly authority: { readonly seq: number; readonly head: string };
  /** JavaScript as it will run; absent for a destroy. */
  readonly source?: string;
  readonly input?: ScriptPayload['input'];
  readonly caps?: readonly string[];
  readonly limits?: Partial<ScriptPayloadInput['limits']>;
  readonly onFailure?: ScriptPayload['onFailure'];
  readonly deleteData?: readonly string[];
  readonly secrets?: Readonly<Record<string, string>>;
  readonly expect?: Readonly<Record<string, string>>;
  readonly message?: string;
  readonly lifetimeSeconds?: number;
}

export function buildScriptPayload(
  verifier: Verifier,
  draft: ScriptDraft,
  entropy: Entropy,
): ScriptPayload {
  const iat = Math.floor(entropy.nowMs / 1000);
  const { source } = draft;
  return {
    v: 1,
    id: newRevisionId(entropy),
    realm: draft.realm ?? 'default',
    deployment: draft.deployment,
    generation: draft.generation,
    mode: draft.mode ?? 'apply',
    aud: { nodes: [...draft.nodes], count: draft.count ?? draft.nodes.length },
    iat,
    nbf: iat,
    exp: iat + (draft.lifetimeSeconds ?? LIMITS.lifetimeSecondsDefault),
    nonce: base64url(entropy.randomBytes(16)),
    authority: { seq: draft.authority.seq, head: draft.authority.head },
    ...(source === undefined
      ? {}
      : {
          script: {
            engine: 'quickjs-es2023' as const,
            sha256: hex(verifier.sha256(utf8(source))),
            source,
          },
        }),
    input: draft.input ?? {},
    caps: [...(draft.caps ?? [])],
    limits: RunLimits.parse(draft.limits ?? {}),
    onFailure: draft.onFailure ?? 'undo',
    deleteData: [...(draft.deleteData ?? [])],
    secrets: { ...draft.secrets },
    ...(draft.expect === undefined ? {} : { expect: { ...draft.expect } }),
    message: draft.message ?? '',
  };
}

/** Ends every run of one script envelope on these nodes. */
export function buildCancelPayload(
  cancel: {
    readonly realm: string;
    /** By node id. */
    readonly nodes: readonly string[];
    /** Digest of the script envelope. */
    readonly target: string;
    /** The authority as the signer sees it. */
    readonly authority: { readonly seq: number; readonly head: string };
    readonly lifetimeSeconds?: number;
  },
  entropy: Entropy,
): CancelPayload {
  const iat = Math.floor(entropy.nowMs / 1000);
  return {
    v: 1,
    id: newRevisionId(entropy).replace('rev_', 'can_'),
    realm: cancel.realm,
    aud: { nodes: [...cancel.nodes] },
    target: cancel.target,
    iat,
    exp: iat + (cancel.lifetimeSeconds ?? LIMITS.lifetimeSecondsDefault),
    nonce: base64url(entropy.randomBytes(16)),
    authority: { seq: cancel.authority.seq, head: cancel.authority.head },
  };
}

/** `rev_` and a UUIDv7 (RFC 9562 §5.7): sorts by time of signing. */
export function newRevisionId({ nowMs, randomBytes }: Entropy): RevisionId {
  const bytes = randomBytes(16);
  new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(
    0,
    (BigInt(nowMs) << 16n) | 0x7000n | (BigInt(((bytes[6] ?? 0) << 8) | (bytes[7] ?? 0)) & 0x0fffn),
  );
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const text = hex(bytes);
  const parts = [
    [0, 8],
    [8, 12],
    [12, 16],
    [16, 20],
    [20, 32],
  ] as const;
  return `rev_${parts.map(([from, to]) => text.slice(from, to)).join('-')}`;
}

export function buildGenesisPayload(genesis: {
  readonly rootKeys: readonly { readonly publicKey: Uint8Array; readonly name: string }[];
  /** Signatures that later root changes, and the genesis itself, need. */
  readonly threshold: number;
  readonly nowSeconds: number;
}): AuthorityPayload {
  const rootKeys = genesis.rootKeys.map(({ publicKey, name }) => ({
    publicKey: base64(publicKey),
    name,
  }));
  return {
    v: 1,
    seq: 0,
    prev: null,
    iat: genesis.nowSeconds,
    change: { type: 'genesis', rootKeys, threshold: genesis.threshold },
  };
}

/** The update that follows `authority`. */
export function buildAuthorityPayload(
  authority: Pick<Authority, 'seq' | 'head'>,
  change: AuthorityChange,
  nowSeconds: number,
): AuthorityPayload {
  return { v: 1, seq: authority.seq + 1, prev: authority.head, iat: nowSeconds, change };
}

interface AdmissionDraft {
  readonly name: string;
  /** Default: `default`. */
  readonly realms?: readonly string[];
  readonly labels?: Labels;
  /** The node whose name passes to the new key. */
  readonly replaces?: NodeId | undefined;
  readonly lifetimeSeconds: number;
}

function admissionOf(draft: AdmissionDraft, nowMs: number): Omit<AdmissionPayload, 'tokenHash'> {
  const iat = Math.floor(nowMs / 1000);
  return {
    v: 1,
    ...(draft.replaces === undefined ? {} : { replaces: draft.replaces }),
    name: draft.name,
    realms: [...(draft.realms ?? ['default'])],
    labels: { ...draft.labels },
    iat,
    exp: iat + draft.lifetimeSeconds,
  };
}

/** An admission and the secret that spends it: 32 random bytes, to be shown once and never stored. */
export function buildAdmissionPayload(
  verifier: Verifier,
  draft: AdmissionDraft,
  { nowMs, randomBytes }: Entropy,
): { readonly payload: AdmissionPayload; readonly token: Uint8Array } {
  const token = randomBytes(32);
  const tokenHash = hex(verifier.sha256(token));
  return { payload: { ...admissionOf(draft, nowMs), tokenHash }, token };
}

/** An admission for the one node with this fingerprint. */
export function buildNodeAdmissionPayload(
  node: NodeId,
  draft: AdmissionDraft,
  nowMs: number,
): AdmissionPayload {
  return { ...admissionOf(draft, nowMs), node };
}
