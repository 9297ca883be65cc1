import {
  type AdmissionPayload,
  base64,
  canonicalJson,
  HyphaError,
  type JoinToken,
  type NodeFacts,
  type NodeView,
  parseJoinToken,
  signEnrolment,
  type Verifier,
  verifyAdmission,
} from '@hypha/protocol';
import { AuthorityFollower } from './authority-follower.ts';
import type { Boot } from './boot.ts';
import type { Clock } from './clock.ts';
import type { LedgerPort } from './ledger-port.ts';
import { IDENTITY_LIMITS as LIMITS, retryDelayMs } from './limits.ts';
import { findMembership, type Membership, saveMembership } from './membership.ts';
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
 * @throws HyphaError `E_TOKEN` when there is no membership and no readable token; `E_CONFLICT` when the
 *   membership is another key's; the signal's reason
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
      const retryInMs = retryDelayMs(attempt, deps.clock.jitter());
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

/** A token that cannot be read throws here, before any attempt: no retry would change it. */
function firstJoin(deps: JoinDeps, signal: AbortSignal): () => Promise<Joined> {
  if (deps.joinToken === undefined) {
    throw new HyphaError(
      'E_TOKEN',
      `node ${deps.keys.nodeId} has joined no fleet and has no token`,
      {
        hint: 'ask an admin for one: hypha node add NAME',
      },
    );
  }
  const token = parseJoinToken(deps.joinToken);
  return () => enrol(deps, token, signal);
}

async function enrol(deps: JoinDeps, token: JoinToken, signal: AbortSignal): Promise<Joined> {
  const { keys, verifier, clock } = deps;
  const ledgerUrl = deps.ledgerUrl ?? token.ledger;
  const ledger = deps.connect(ledgerUrl);
  const authority = await openAuthority(deps, token.genesis, ledger, signal);
  await authority.refresh({ maxAgeMs: 0, timeoutMs: LIMITS.attemptMsMax });
  // What the node will believe of itself, checked down to the pinned genesis and not taken from the token.
  const { payload: admitted } = verifyAdmission(verifier, {
    envelope: token.admission,
    authority: authority.current,
    profile: 'audit',
  });
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(LIMITS.attemptMsMax)]);
  const facts = await deps.facts();
  const { challenge } = await ledger.challenge({ signal: bounded });
  const sealKey = keys.sealKeys.current;
  const statement = signEnrolment(
    {
      v: 1,
      publicKey: base64(keys.signer.publicKey),
      sealKey: base64(sealKey),
      admission: token.admission,
      token: token.secret,
      challenge,
      bootId: deps.boot.bootId,
      iat: Math.floor(clock.nowMs() / 1000),
      facts,
    },
    keys.signer,
  );
  const record = await ledger.enrol(statement, { signal: bounded });
  checkIsOurs(record, keys.nodeId, admitted);
  await keys.sealKeys.notePublished(sealKey);
  const membership: Membership = {
    v: 1,
    node: keys.nodeId,
    name: admitted.name,
    labels: admitted.labels,
    realms: admitted.realms,
    genesis: token.genesis,
    ledger: ledgerUrl,
    coordinator: deps.coordinatorUrl ?? token.coordinator,
    admission: token.admission,
    enrolledAt: record.enrolledAt,
  };
  await saveMembership(deps.folder, membership);
  return { membership, authority, ledger };
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
