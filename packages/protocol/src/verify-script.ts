/**
 * The one verification of scripts (design §8, G1). Coordinator, supervisor, runner and CLI call this
 * function; the order of checks is that of security notes §1.4 with one code per check, so that a
 * refusal names the first thing that does not hold.
 */
import type { Authority } from './authority.ts';
import type { Grant } from './authority-payload.ts';
import type { KeyRecord } from './authority-state.ts';
import type { Verifier } from './crypto-port.ts';
import type { Envelope } from './dsse.ts';
import { hex, utf8 } from './encoding.ts';
import { HyphaError } from './hypha-error.ts';
import { LIMITS } from './limits.ts';
import type { ReplayMemory } from './replay-memory.ts';
import { findScopeFault, findUncovered } from './scope.ts';
import { ScriptPayload } from './script-payload.ts';
import { findUsableKey } from './usable-key.ts';
import { openEnvelope, verifyOpened } from './verify-envelope.ts';
import { parseEnvelope, parseJsonAs } from './wire.ts';

/**
 * `admit`: before work is accepted, every check. `execute`: before a run starts or resumes, signature,
 * key, scope, audience and revocation against the newest known authority; never time, freshness or replay.
 */
export type VerifyProfile = 'admit' | 'execute';

export interface VerifyScriptInput {
  /** Parsed already, or the raw JSON text. */
  readonly envelope: Envelope | Uint8Array;
  readonly authority: Authority;
  readonly profile: VerifyProfile;
  /** Wall clock, seconds since 1970. Unused by `execute`. */
  readonly nowSeconds: number;
  /** The node that is asked to run it; absent at the coordinator, which only routes. */
  readonly node?: { readonly id: string; readonly realms: readonly string[] };
  /** Absent: replay is checked elsewhere (the coordinator's and the node's store do). */
  readonly replay?: ReplayMemory;
}

export interface VerifiedScript {
  readonly payload: ScriptPayload;
  /** Hex SHA-256 of the pre-authentication bytes. */
  readonly digest: string;
  readonly envelope: Envelope;
  readonly keyids: readonly string[];
  /** Grants of the signers, in the order of `keyids`. */
  readonly grants: readonly Grant[];
  /** The replay memory holds this very digest: answer with the run it has (design §8). */
  readonly existing: boolean;
}

/**
 * @throws HyphaError in this order `E_SIZE`, `E_ENVELOPE`, `E_PAYLOAD_TYPE`, `E_SIG_FORMAT`, `E_UNKNOWN_KEY`,
 *   `E_KEY_REVOKED`, `E_KEY_EXPIRED`, `E_WEAK_KEY`, `E_SIG_MALLEABLE`, `E_SIG_INVALID`, `E_PAYLOAD`,
 *   `E_DIGEST`, `E_AUDIENCE`, `E_NOT_YET`, `E_EXPIRED`, `E_LIFETIME`, `E_STALE_VIEW`, `E_LOG_FORK`,
 *   `E_SCOPE`, `E_REPLAY`
 */
export function verifyScript(verifier: Verifier, input: VerifyScriptInput): VerifiedScript {
  const { authority, nowSeconds, node, replay } = input;
  const envelope =
    input.envelope instanceof Uint8Array ? parseEnvelope(input.envelope) : input.envelope;
  const opened = openEnvelope(verifier, envelope, 'script');
  const existing = replay?.hasDigest(opened.digest) ?? false;
  // What was accepted in time stays accepted: the same digest again is judged without clocks.
  const timed = input.profile === 'admit' && !existing;

  const records = new Map<string, KeyRecord>();
  const {
    digest,
    keyids,
    payload: bytes,
  } = verifyOpened(verifier, opened, (keyid) => {
    const record = findUsableKey(authority, keyid, timed ? nowSeconds : undefined);
    if (record !== undefined) records.set(keyid, record);
    return record?.publicKey;
  });
  const grants = [...records.values()].map(({ grant }) => grant);

  const payload = parseJsonAs(ScriptPayload, bytes, {
    code: 'E_PAYLOAD',
    what: `the script payload ${digest}`,
    integersOnly: true,
  });
  checkScriptDigest(verifier, payload);
  if (node !== undefined) checkAudience(payload, node, authority);
  if (timed) {
    checkTime(payload, nowSeconds);
    checkView(payload, authority);
  }
  checkAnyGrantCovers(payload, grants);
  if (input.profile === 'admit' && replay !== undefined && !existing)
    checkUnused(payload, digest, keyids, replay);
  return { payload, digest, envelope, keyids, grants, existing };
}

function checkScriptDigest(verifier: Verifier, { script }: ScriptPayload): void {
  if (script === undefined) return;
  const actual = hex(verifier.sha256(utf8(script.source)));
  if (actual === script.sha256) return;
  throw new HyphaError('E_DIGEST', `the source hashes to ${actual}, signed was ${script.sha256}`, {
    where: { path: 'script.sha256' },
  });
}

function checkAudience(
  { aud, realm, id }: ScriptPayload,
  node: { readonly id: string; readonly realms: readonly string[] },
  authority: Authority,
): void {
  if (!aud.nodes.includes(node.id)) {
    throw new HyphaError('E_AUDIENCE', `revision ${id} is not addressed to ${node.id}`, {
      where: { path: 'aud.nodes' },
    });
  }
  if (findUncovered(node.realms, [realm]) !== undefined) {
    throw new HyphaError('E_AUDIENCE', `node ${node.id} does not serve the realm ${realm}`, {
      where: { path: 'realm' },
      hint: 'choose a node that serves the realm: hypha node list',
    });
  }
  if (authority.isNodeRevoked(node.id)) {
    throw new HyphaError('E_AUDIENCE', `node ${node.id} was revoked`, {
      where: { path: 'aud.nodes' },
      hint: 'choose another node: hypha node list',
    });
  }
}

function checkTime({ id, iat, nbf, exp }: ScriptPayload, nowSeconds: number): void {
  const latest = nowSeconds + LIMITS.skewSeconds;
  if (nbf > latest || iat > latest) {
    const path = nbf > latest ? 'nbf' : 'iat';
    throw new HyphaError(
      'E_NOT_YET',
      `revision ${id} has ${path} ${path === 'nbf' ? nbf : iat}, now is ${nowSeconds}`,
      { where: { path } },
    );
  }
  if (nowSeconds >= exp) {
    throw new HyphaError('E_EXPIRED', `revision ${id} expired at ${exp}, now is ${nowSeconds}`, {
      where: { path: 'exp' },
    });
  }
  if (exp - nbf > LIMITS.lifetimeSecondsMax) {
    throw new HyphaError(
      'E_LIFETIME',
      `revision ${id} is valid for ${exp - nbf} s: at most ${LIMITS.lifetimeSecondsMax}`,
      { where: { path: 'exp' } },
    );
  }
}

/** The receiver must know at least what the signer saw, or a withheld revocation would go unseen. */
function checkView({ authority: seen }: ScriptPayload, authority: Authority): void {
  const ours = authority.hashAt(seen.seq);
  if (ours === undefined) {
    throw new HyphaError(
      'E_STALE_VIEW',
      `the signer saw authority update ${seen.seq}, known here is ${authority.seq}`,
      {
        where: { path: 'authority.seq' },
        hint: 'wait for the ledger or staple the missing updates',
      },
    );
  }
  if (ours === seen.head) return;
  throw new HyphaError(
    'E_LOG_FORK',
    `the signer saw ${seen.head} as authority update ${seen.seq}, here it is ${ours}`,
    { where: { path: 'authority.head' }, details: { seq: seen.seq, signer: seen.head, ours } },
  );
}

/** Scopes of several signers do not add up: one of them must cover the whole script. */
function checkAnyGrantCovers(payload: ScriptPayload, grants: readonly Grant[]): void {
  const faults = grants.map((grant) => findScopeFault(payload, grant));
  if (faults.includes(undefined)) return;
  throw faults[0];
}

function checkUnused(
  { id, nonce }: ScriptPayload,
  digest: string,
  keyids: readonly string[],
  replay: ReplayMemory,
): void {
  const byId = replay.findId(id);
  if (byId !== undefined && byId !== digest) {
    throw new HyphaError('E_REPLAY', `the id ${id} was used by envelope ${byId}`, {
      where: { path: 'id' },
    });
  }
  for (const keyid of keyids) {
    const byNonce = replay.findNonce(keyid, nonce);
    if (byNonce === undefined || byNonce === digest) continue;
    throw new HyphaError('E_REPLAY', `the nonce of ${id} was used by envelope ${byNonce}`, {
      where: { path: 'nonce' },
    });
  }
}
