import {
  type AdmissionPayload,
  Authority,
  canonicalJson,
  HyphaError,
  isHyphaError,
  type NodeFacts,
  type NodeView,
  type Verifier,
} from '@hypha/protocol';
import { AuthorityFollower } from './authority-follower.ts';
import type { Boot } from './boot.ts';
import type { Clock } from './clock.ts';
import { signStatement } from './enrol-statement.ts';
import { findPlace, type Place } from './join-place.ts';
import type { LedgerPort } from './ledger-port.ts';
import { IDENTITY_LIMITS as LIMITS, retryDelayMs } from './limits.ts';
import { findMembership, type Membership, saveMembership } from './membership.ts';
import { auditAdmission, findAdmission } from './node-admission.ts';
import type { NodeKeys } from './node-keys.ts';

/** One failed attempt to join, for people to read: nothing is given up. */
export interface JoinFailure {
  readonly error: unknown;
  /** From 1. */
  readonly attempt: number;
  readonly retryInMs: number;
}

export interface JoinDeps {
  /** Where membership and authority are kept. */
  readonly folder: string;
  readonly keys: Pick<NodeKeys, 'nodeId' | 'signer'> & {
    readonly sealKeys: Pick<NodeKeys['sealKeys'], 'current' | 'notePublished'>;
  };
  /** As `hypha node add` printed it. Read only while there is no membership. */
  readonly joinToken?: string | undefined;
  /**
   * Digest of the genesis to trust. Without a token, with both addresses, the node asks to be let in and waits
   * for an admin to admit its fingerprint.
   */
  readonly genesis?: string | undefined;
  /** Instead of the addresses in the token or the membership. */
  readonly ledgerUrl?: string | undefined;
  readonly coordinatorUrl?: string | undefined;
  /** The ledger at this address, requests signed with the node's key. */
  readonly connect: (ledgerUrl: string) => LedgerPort;
  readonly facts: () => Promise<NodeFacts>;
  readonly boot: Boot;
  readonly verifier: Verifier;
  readonly clock: Clock;
  readonly onFailure: (failure: JoinFailure) => void;
  /** Failed readings of the authority after joining. */
  readonly onAuthorityFailure: (error: unknown) => void;
}

export interface Joined {
  readonly membership: Membership;
  readonly authority: AuthorityFollower;
  readonly ledger: LedgerPort;
}

/**
 * Makes the machine a node of its fleet, or finds that it is one. Tries for ever, with back-off, until the
 * signal aborts: a ledger that comes up last, or an admin who corrects something, is waited for.
 * Idempotent: an answer that was lost is given again, since the ledger knows the key.
 * @throws HyphaError `E_TOKEN` when there is no membership and neither a readable token nor all that takes its
 *   place; `E_AUTHORITY` for a token of another genesis than the one to trust; `E_CONFLICT` when the membership
 *   is another key's; the signal's reason
 */
export async function joinFleet(deps: JoinDeps, signal: AbortSignal): Promise<Joined> {
  const kept = await findMembership(deps.folder);
  if (kept !== undefined && kept.node !== deps.keys.nodeId) {
    throw new HyphaError(
      'E_CONFLICT',
      `the membership in ${deps.folder} is that of ${kept.node}, the key makes ${deps.keys.nodeId}`,
      { hint: 'restore the key; or remove the membership and join again with a new token' },
    );
  }
  const attemptOnce =
    kept === undefined ? firstJoin(deps, signal) : () => resume(deps, kept, signal);
  for (let attempt = 1; ; attempt++) {
    signal.throwIfAborted();
    try {
      return await attemptOnce();
    } catch (error) {
      signal.throwIfAborted();
      const delayMs = retryDelayMs(attempt, deps.clock.jitter());
      // An admin who has just admitted the node watches it.
      const isPending = isHyphaError(error, 'E_PENDING');
      const retryInMs = isPending ? Math.min(delayMs, LIMITS.pendingRetryMsMax) : delayMs;
      deps.onFailure({ error, attempt, retryInMs });
      await deps.clock.sleep(retryInMs, signal);
    }
  }
}

async function resume(deps: JoinDeps, kept: Membership, signal: AbortSignal): Promise<Joined> {
  const membership = {
    ...kept,
    ledger: deps.ledgerUrl ?? kept.ledger,
    coordinator: deps.coordinatorUrl ?? kept.coordinator,
  };
  const ledger = deps.connect(membership.ledger);
  return {
    membership,
    ledger,
    authority: await openAuthority(deps, membership.genesis, ledger, signal),
  };
}

function firstJoin(deps: JoinDeps, signal: AbortSignal): () => Promise<Joined> {
  const place = findPlace(deps);
  return () => enrol(deps, place, signal);
}

async function enrol(deps: JoinDeps, place: Place, signal: AbortSignal): Promise<Joined> {
  const { keys } = deps;
  const { genesis } = place;
  const ledger = deps.connect(place.ledger);
  const authority = await openAuthority(deps, genesis, ledger, signal);
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(LIMITS.attemptMsMax)]);
  await authenticate(deps, { genesis, ledger, authority }, bounded);
  const source = { ledger, authority: authority.current };
  const nowSeconds = Math.floor(deps.clock.nowMs() / 1000);
  const token = place.token;
  const offered =
    token?.admission ?? (await findAdmission(deps, source, { nowSeconds, signal: bounded }));
  // No token for what the chain does not bear out.
  if (offered !== undefined) auditAdmission(deps, offered, source.authority);
  const sealKey = keys.sealKeys.current;
  const statement = await signStatement(deps, ledger, {
    sealKey,
    ...(offered === undefined ? {} : { admission: offered }),
    ...(token === undefined ? {} : { token: token.secret }),
    signal: bounded,
  });
  // Without an admission the answer is E_PENDING, unless the ledger knows the key already.
  const record = await ledger.enrol(statement, { signal: bounded });
  const admission = offered ?? (await findAdmission(deps, source, { signal: bounded }));
  if (admission === undefined) {
    throw new HyphaError('E_CONFLICT', `${keys.nodeId} has enrolled before as ${record.name}`, {
      hint: 'restore its membership; or remove the node state and join as a new node',
    });
  }
  // What the node will believe of itself: down to the pinned genesis, and not from anyone's answer.
  const admitted = auditAdmission(deps, admission, source.authority);
  checkIsOurs(record, keys.nodeId, admitted);
  await keys.sealKeys.notePublished(sealKey);
  const membership: Membership = {
    v: 1,
    node: keys.nodeId,
    name: admitted.name,
    labels: admitted.labels,
    realms: admitted.realms,
    genesis,
    ledger: place.ledger,
    coordinator: place.coordinator,
    admission,
    enrolledAt: record.enrolledAt,
  };
  await saveMembership(deps.folder, membership);
  return { membership, authority, ledger };
}

/**
 * Nothing of worth is said to a ledger before it has served, in this very attempt, the chain that begins at the
 * pinned genesis and continues what is known of it.
 */
async function authenticate(
  { verifier }: JoinDeps,
  {
    genesis,
    ledger,
    authority,
  }: { genesis: string; ledger: LedgerPort; authority: AuthorityFollower },
  signal: AbortSignal,
): Promise<void> {
  const { items } = await ledger.authority({}, { signal });
  Authority.replay(verifier, items, genesis);
  await authority.grow(items);
  await authority.refresh({ maxAgeMs: 0, timeoutMs: LIMITS.attemptMsMax });
}

/** A key that enrolled before gets that record, whatever token it brings now. */
function checkIsOurs(record: NodeView, nodeId: string, admitted: AdmissionPayload): void {
  const ours = { name: admitted.name, labels: admitted.labels, realms: admitted.realms };
  const theirs = { name: record.name, labels: record.labels, realms: record.realms };
  if (record.id === nodeId && canonicalJson(theirs) === canonicalJson(ours)) return;
  throw new HyphaError(
    'E_CONFLICT',
    `${nodeId} has enrolled before as ${record.name}, with another token`,
    {
      details: { enrolled: { id: record.id, ...theirs }, token: ours },
      hint: 'use the token it joined with; or remove the node state and join as a new node',
    },
  );
}

function openAuthority(
  deps: JoinDeps,
  genesis: string,
  ledger: LedgerPort,
  signal: AbortSignal,
): Promise<AuthorityFollower> {
  const { folder, verifier, clock, onAuthorityFailure: onFailure } = deps;
  return AuthorityFollower.open({ folder, genesis, ledger, verifier, clock, onFailure }, signal);
}
