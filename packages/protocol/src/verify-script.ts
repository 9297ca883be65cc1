/**
 * The one verification of scripts (design §8, G1). Coordinator, supervisor, runner and CLI call this
 * function; the order of checks is that of security notes §1.4 with one code per check, so that a
 * refusal names the first thing that does not hold.
 */
import type { Authority } from './authority.ts';
import type { Grant, Policy } from './authority-payload.ts';
import type { KeyRecord } from './authority-state.ts';
import type { Checkpoint } from './checkpoint.ts';
import type { Verifier } from './crypto-port.ts';
import type { Envelope } from './dsse.ts';
import { hex, withUtf8 } from './encoding.ts';
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

export interface ScriptTarget {
  readonly id: string;
  readonly realms: readonly string[];
  /** For people to read. */
  readonly name?: string;
}

export interface VerifyScriptInput {
  /** Parsed already, or the raw JSON text. */
  readonly envelope: Envelope | Uint8Array;
  readonly authority: Authority;
  readonly profile: VerifyProfile;
  /** Wall clock, seconds since 1970. Unused by `execute`. */
  readonly nowSeconds: number;
  /** The node that is asked to run it; absent at the coordinator, which only routes. */
  readonly node?: ScriptTarget;
  /**
   * The newest one that is known, verified: how fresh the authority is. Null: none is, so nothing new is
   * admitted. Absent where somebody else decides that (an audit, a client).
   */
  readonly checkpoint?: Checkpoint | null;
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
 *   `E_SCOPE`, `E_SIG_THRESHOLD`, `E_REPLAY`
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
    checkTime(payload, nowSeconds, node);
    checkView(payload, authority);
    if (input.checkpoint !== undefined) checkFreshness(authority, input.checkpoint, nowSeconds);
  }
  checkGrantsCover(payload, grants, authority.policy);
  if (input.profile === 'admit' && replay !== undefined && !existing)
    checkUnused(payload, digest, keyids, replay);
  return { payload, digest, envelope, keyids, grants, existing };
}

function checkScriptDigest(verifier: Verifier, { script }: ScriptPayload): void {
  if (script === undefined) return;
  const actual = hex(withUtf8(script.source, (bytes) => verifier.sha256(bytes)));
  if (actual === script.sha256) return;
  throw new HyphaError('E_DIGEST', `the source hashes to ${actual}, signed was ${script.sha256}`, {
    where: { path: 'script.sha256' },
  });
}

function checkAudience(
  { aud, realm, id }: ScriptPayload,
  node: ScriptTarget,
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

function checkTime(
  { id, iat, nbf, exp }: ScriptPayload,
  nowSeconds: number,
  node: ScriptTarget | undefined,
): void {
  const latest = nowSeconds + LIMITS.skewSeconds;
  if (nbf > latest || iat > latest) {
    const path = nbf > latest ? 'nbf' : 'iat';
    throw new HyphaError(
      'E_NOT_YET',
      `revision ${id} has ${path} ${path === 'nbf' ? nbf : iat}, now is ${nowSeconds}`,
      {
        where: { path },
        hint:
          node === undefined
            ? 'compare the clocks of signer and coordinator (NTP)'
            : `compare the clocks; if that of the signer is right, fix NTP on ${node.name ?? node.id}`,
      },
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

/**
 * A checkpoint says when the ledger last spoke and which authority update was its newest then: a fresh one
 * cannot be had without that update, so neither can a revocation be withheld for longer than the policy allows.
 */
function checkFreshness(
  authority: Authority,
  checkpoint: Checkpoint | null,
  nowSeconds: number,
): void {
  const stale = (what: string, details?: Record<string, unknown>) =>
    new HyphaError('E_STALE_VIEW', `cannot tell whether the authority is fresh: ${what}`, {
      where: { path: 'checkpoint' },
      ...(details === undefined ? {} : { details }),
    });
  if (checkpoint === null) throw stale('no checkpoint of the ledger is known here');
  const { seq, head } = checkpoint.authority;
  const ours = authority.hashAt(seq);
  if (ours === undefined)
    throw stale(`the ledger is at authority update ${seq}, known here is ${authority.seq}`);
  if (ours !== head) {
    throw new HyphaError(
      'E_LOG_FORK',
      `the checkpoint has ${head} as authority update ${seq}, here it is ${ours}`,
      { where: { path: 'checkpoint' }, details: { seq, checkpoint: checkpoint.note, ours } },
    );
  }
  const age = nowSeconds - checkpoint.time;
  const { checkpointMaxAge } = authority.policy;
  if (age <= checkpointMaxAge) return;
  throw stale(`the newest checkpoint is ${age} s old, the policy allows ${checkpointMaxAge}`, {
    checkpointTime: checkpoint.time,
    checkpointMaxAge,
  });
}

/** Scopes of several signers do not add up: each that counts covers the whole script by itself. */
function checkGrantsCover(payload: ScriptPayload, grants: readonly Grant[], policy: Policy): void {
  const faults = grants.map((grant) => findScopeFault(payload, grant));
  const covering = faults.filter((fault) => fault === undefined).length;
  if (covering === 0) throw faults[0];
  const needed = signaturesNeeded(payload, policy);
  if (covering >= needed) return;
  throw new HyphaError(
    'E_SIG_THRESHOLD',
    `revision ${payload.id} has ${covering} of ${needed} signatures by keys that may sign all of it`,
    { where: { path: 'signatures' }, details: { have: covering, needed } },
  );
}

/** How many keys, each with a grant for all of it, have to sign this script. */
export function signaturesNeeded(payload: ScriptPayload, { signatures }: Policy): number {
  return Math.max(
    signatures.default,
    ...powersAsked(payload).map((power) => signatures.caps[power] ?? 1),
  );
}

/** Capabilities, and what can destroy without one. */
function powersAsked({ caps, mode, deleteData }: ScriptPayload): readonly string[] {
  return [
    ...caps,
    ...(mode === 'destroy' ? ['destroy'] : []),
    ...(deleteData.length > 0 ? ['delete-data'] : []),
  ];
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
