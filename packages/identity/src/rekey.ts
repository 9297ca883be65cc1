/**
 * A node takes another identity key. The next key is a file beside the current one: whoever wants the re-key
 * puts it there. Invariant: what the membership names is the identity; until the log proves that the next key
 * has the place, both files and the old membership stay, so every crash leaves a state from which `rekey` goes on.
 */
import { rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  type Authority,
  canonicalJson,
  checkpointOrigin,
  EnrolPayload,
  type Envelope,
  fromBase64,
  fromHex,
  HyphaError,
  isHyphaError,
  leafHash,
  type NodeFacts,
  type NodeId,
  nodeIdOf,
  parseJsonAs,
  type Signer,
  utf8,
  type Verifier,
  verifyCheckpoint,
  verifyEnrolStatement,
  verifyInclusion,
} from '@hypha/protocol';
import { findPrivateFile, nodeVerifier, signerFromPem, syncFolder } from '@hypha/protocol/node';
import { AuthorityFollower } from './authority-follower.ts';
import type { Boot } from './boot.ts';
import type { Clock } from './clock.ts';
import { signStatement } from './enrol-statement.ts';
import type { LedgerPort, LogProofs } from './ledger-port.ts';
import { IDENTITY_LIMITS as LIMITS } from './limits.ts';
import { findMembership, saveMembership } from './membership.ts';
import type { NodeKeys } from './node-keys.ts';

const NEXT_FILE = 'identity.next.pem';

export interface RekeyDeps {
  /** Where keys, membership and authority are kept. */
  readonly folder: string;
  /** The node as it is. */
  readonly keys: Pick<NodeKeys, 'nodeId' | 'signer'> & {
    readonly sealKeys: Pick<NodeKeys['sealKeys'], 'current'>;
  };
  readonly connect: (ledgerUrl: string) => LedgerPort & LogProofs;
  /** Instead of the address in the membership. */
  readonly ledgerUrl?: string | undefined;
  readonly facts: () => Promise<NodeFacts>;
  readonly boot: Pick<Boot, 'bootId'>;
  readonly verifier: Verifier;
  readonly clock: Clock;
}

/** The key that waits to become the node's, and its id; undefined when none does. Throws `E_CONFLICT` for what is no key. */
export async function findNextKey(
  folder: string,
): Promise<{ readonly node: NodeId; readonly signer: Signer } | undefined> {
  const path = join(folder, NEXT_FILE);
  const pem = await findPrivateFile(path);
  if (pem === undefined) return undefined;
  try {
    const signer = signerFromPem(pem);
    return { signer, node: nodeIdOf(nodeVerifier, signer.publicKey) };
  } catch (cause) {
    throw new HyphaError('E_CONFLICT', `cannot read the next node key in ${path}`, {
      cause,
      hint: `remove it, then: hypha node rekey`,
    });
  }
}

/**
 * Puts the next key in the place of the identity when the membership says that it is. Call before the identity
 * is read. Idempotent.
 */
export async function adoptNextKey(folder: string, identityFile: string): Promise<void> {
  // One that cannot be read is no reason not to start: `rekey` says what is wrong with it.
  const next = await findNextKey(folder).catch((error: unknown) => {
    if (isHyphaError(error, 'E_CONFLICT')) return undefined;
    throw error;
  });
  if (next === undefined) return;
  const membership = await findMembership(folder);
  if (membership?.node !== next.node) return;
  await rename(join(folder, NEXT_FILE), identityFile);
  await syncFolder(dirname(identityFile));
}

/**
 * Gives the node's place to the next key: the ledger has a statement signed by both, in its log under a head
 * signed by the key that the authority names. On disk when it resolves; the keys have to be opened again.
 * @returns the id of the node from now on
 * @throws HyphaError `E_CONFLICT` without membership or next key; what the ledger refuses with; `E_PROOF`,
 *   `E_CHECKPOINT` when it does not prove what it answered. Nothing has changed here then, and it can be repeated.
 */
export async function rekey(deps: RekeyDeps, signal: AbortSignal): Promise<NodeId> {
  const { folder, keys, verifier, clock } = deps;
  const [membership, next] = [await findMembership(folder), await findNextKey(folder)];
  if (membership?.node !== keys.nodeId || next === undefined) {
    throw new HyphaError('E_CONFLICT', `there is no next key for ${keys.nodeId}, or no membership`);
  }
  const { genesis } = membership;
  const ledger = deps.connect(deps.ledgerUrl ?? membership.ledger);
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(LIMITS.attemptMsMax)]);
  const onFailure = () => undefined;
  const authority = await AuthorityFollower.open(
    { folder, genesis, ledger, verifier, clock, onFailure },
    bounded,
  );
  await authority.refresh({ maxAgeMs: 0, timeoutMs: LIMITS.attemptMsMax });
  const statement = await signStatement({ ...deps, keys: next }, ledger, {
    sealKey: keys.sealKeys.current,
    admission: (await findPlace(ledger, keys.nodeId, bounded)) ?? membership.admission,
    replaced: { node: keys.nodeId, signer: keys.signer },
    signal: bounded,
  });
  const record = await ledger.enrol(statement, { signal: bounded });
  if (record.id !== next.node || record.name !== membership.name) {
    throw new HyphaError('E_CONFLICT', `the ledger answers with ${record.name}, ${record.id}`);
  }
  const taken = { old: keys, next: next.node, genesis, authority: authority.current };
  await confirmLogged(deps, ledger, taken, bounded);
  await saveMembership(folder, {
    ...membership,
    node: next.node,
    origin: membership.origin ?? keys.nodeId,
    enrolledAt: record.enrolledAt,
  });
  return next.node;
}

/**
 * The admission the node stands under: that of its enrolment in the log. A node that asked twice, because an
 * answer was lost, may hold another one. A ledger that shows a wrong one is told so by everybody else.
 */
async function findPlace(
  ledger: LedgerPort,
  node: string,
  signal: AbortSignal,
): Promise<Envelope | undefined> {
  const { items } = await ledger.listEntries({ kind: 'enrol', node }, { signal });
  const refusal = { code: 'E_PROOF', what: `an enrolment of ${node} in the log` } as const;
  return items
    .map(({ envelope }) => parseJsonAs(EnrolPayload, fromBase64(envelope.payload), refusal))
    .find(({ admission }) => admission !== undefined)?.admission;
}

/** Whoever answers for the ledger must not be able to part the node from its old key. */
async function confirmLogged(
  { verifier }: RekeyDeps,
  ledger: LedgerPort & LogProofs,
  taken: {
    readonly old: RekeyDeps['keys'];
    readonly next: NodeId;
    readonly genesis: string;
    readonly authority: Authority;
  },
  signal: AbortSignal,
): Promise<void> {
  const { authority, genesis, next, old } = taken;
  // Before the authority names one, no head can be told from another.
  if (authority.ledgerKey === undefined) return;
  const { items } = await ledger.listEntries({ kind: 'enrol', node: next }, { signal });
  const entry = items.find(({ envelope }) => replacesOld(verifier, { envelope, authority, old }));
  if (entry === undefined) {
    throw new HyphaError('E_PROOF', `the log has no statement that ${next} replaces ${old.nodeId}`);
  }
  const { checkpoint } = await ledger.checkpoint({ signal });
  const head = verifyCheckpoint(verifier, checkpoint, {
    origin: checkpointOrigin(genesis),
    publicKey: authority.ledgerKey.publicKey,
  });
  const { digest, envelope } = entry;
  const { index, proof } = await ledger.inclusion({ digest, size: head.size }, { signal });
  verifyInclusion(verifier, {
    index,
    size: head.size,
    leafHash: leafHash(verifier, utf8(canonicalJson(envelope))),
    proof: proof.map(fromHex),
    root: fromHex(head.root),
  });
}

function replacesOld(
  verifier: Verifier,
  wanted: { envelope: Envelope; authority: Authority; old: RekeyDeps['keys'] },
): boolean {
  const { envelope, authority, old } = wanted;
  const findNodeKey = (node: string) => (node === old.nodeId ? old.signer.publicKey : undefined);
  try {
    const { payload } = verifyEnrolStatement(verifier, { envelope, authority, findNodeKey });
    return payload.replaces === old.nodeId;
  } catch (error) {
    if (error instanceof HyphaError) return false;
    throw error;
  }
}
