/**
 * Whether a run ended as the coordinator says. Only the node's own receipt counts: signed by the key that an
 * admin let in, over exactly the envelope that was sent from here.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { RunsClient } from '@hypha/client';
import {
  fromBase64,
  HyphaError,
  hex,
  isHyphaError,
  nodeIdOf,
  type ReceiptPayload,
  runIdOf,
  type SubmissionAccepted,
  utf8,
  verifyReceipt,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { fetchAuthority } from './authority-chain.ts';
import { findEnrolment } from './node-enrolment.ts';
import { assertIsRun } from './run-identity.ts';
import type { ClaimedEnd, WatchedRun } from './run-watch.ts';
import type { Session } from './session.ts';
import type { SubmittedRun } from './submission.ts';
import type { ViaFlags } from './via.ts';

const RECEIPT_POLL_MS = 200;
/** A receipt follows the end of its run by the time it takes to sign and to carry it. */
const RECEIPT_MS_MAX = 15_000;

/** What was sent: who was asked, and the digest of the envelope. */
export interface SentWork {
  readonly digest: string;
  readonly aud: { readonly nodes: readonly string[]; readonly count: number };
}

/**
 * The runs have to be those of this envelope on nodes it names, at least as many as it asks for.
 * @throws HyphaError `E_CONFLICT`: whoever answered tells of other work
 */
export function checkAccepted(sent: SentWork, { runs }: SubmissionAccepted): void {
  const refuse = (what: string) => {
    throw new HyphaError(
      'E_CONFLICT',
      `the answer is not about the envelope ${sent.digest}: ${what}`,
      {
        hint: 'do not believe this coordinator; send to the node itself: --via node',
      },
    );
  };
  for (const { run, node } of runs) {
    if (!sent.aud.nodes.includes(node)) refuse(`${node} was not asked`);
    if (run !== runIdOf(nodeVerifier, sent.digest, node)) refuse(`${run} is another run`);
  }
  const { size } = new Set(runs.map(({ node }) => node));
  if (size < sent.aud.count) refuse(`it names ${size} nodes, ${sent.aud.count} were asked for`);
}

/**
 * Waits for the receipt and checks it: then every event that was shown is the node's own, and so is the output.
 * @throws HyphaError `E_UNAVAILABLE` when it does not come before the signal aborts, or cannot be checked;
 *   `E_CONFLICT` when it says otherwise; the codes of a receipt or an enrolment that does not hold
 */
export async function proveEnd(
  session: Session,
  digest: string,
  { run, node, name, reader }: SubmittedRun,
  claimed: ClaimedEnd,
  signal: AbortSignal,
): Promise<ReceiptPayload> {
  const publicKey = await findNodeKey(session, node);
  const envelope = await waitForReceipt(
    () => reader.receipt(run, { signal }),
    signal,
    `${name} (${run})`,
  );
  const { payload } = verifyReceipt(nodeVerifier, { envelope, publicKey });
  const { run: ofRun, envelopeDigest, state, journalHead, outputSha256 } = payload;
  const output =
    claimed.output === undefined ? undefined : hex(nodeVerifier.sha256(utf8(claimed.output)));
  const lies = [
    ...(ofRun === run && envelopeDigest === digest ? [] : [`its receipt is of ${ofRun}`]),
    ...(state === claimed.state ? [] : [`told was ${claimed.state}, its receipt says ${state}`]),
    ...(journalHead === claimed.journalHead ? [] : ['its receipt is of other events']),
    ...(outputSha256 === output ? [] : ['its receipt is of another output']),
  ];
  if (lies.length === 0) return payload;
  throw new HyphaError('E_CONFLICT', `what was told of ${run} is not true: ${lies.join('; ')}`, {
    hint: 'do not believe this coordinator; ask the node itself: --via node',
  });
}

/**
 * The same for a run that is known by its id alone: that is the hash of envelope digest and node, so it says
 * which receipt is meant. Waits a moment for it.
 * @param via a node that is asked itself stands alone (G8): what cannot be checked now is its own word
 */
export function proofOf(
  session: Session,
  reader: RunsClient,
  run: string,
  via: ViaFlags['via'],
): NonNullable<WatchedRun['prove']> {
  return async (claimed, signal) => {
    const { node, envelopeDigest } = await reader.run(run, { signal });
    assertIsRun({ node, envelopeDigest }, run);
    const soon = AbortSignal.any([signal, AbortSignal.timeout(RECEIPT_MS_MAX)]);
    const submitted = { run, node, name: node, reader };
    await unlessAlone(session, via, () =>
      proveEnd(session, envelopeDigest, submitted, claimed, soon),
    );
  };
}

/** Undefined when a node that was asked itself cannot be vouched for now: nobody stands between who could lie. */
export async function unlessAlone<T>(
  session: Session,
  via: ViaFlags['via'],
  prove: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await prove();
  } catch (error) {
    if (via !== 'node' || !isHyphaError(error, 'E_UNAVAILABLE')) throw error;
    session.output.note(`not proven yet, the node says so: ${error.message}`);
    return undefined;
  }
}

async function waitForReceipt<T>(
  ask: () => Promise<T>,
  signal: AbortSignal,
  what: string,
): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (signal.aborted) {
        throw new HyphaError('E_UNAVAILABLE', `no receipt of ${what} came in time`, {
          cause: error,
        });
      }
      const isEarly = isHyphaError(error) && (error.code === 'E_NOT_FOUND' || error.retryable);
      if (!isEarly) throw error;
      await delay(RECEIPT_POLL_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}

/**
 * The key a node signs with, by its enrolment in the log. With the ledger away, a node this context pins is
 * still known by its id, which is the hash of its key: then anyone may say the key.
 */
async function findNodeKey(session: Session, node: string): Promise<Uint8Array> {
  try {
    const authority = await fetchAuthority(session);
    const { publicKey } = await findEnrolment(session, authority, node);
    if (!authority.isNodeRevoked(node)) return publicKey;
    throw new HyphaError('E_KEY_REVOKED', `node ${node} was revoked: its receipts prove nothing`);
  } catch (error) {
    if (!isHyphaError(error, 'E_UNAVAILABLE')) throw error;
    const pinned = session.context.nodes.some(({ id }) => id === node);
    const key = pinned ? await keyByCoordinator(session, node) : undefined;
    if (key !== undefined) return key;
    throw error;
  }
}

async function keyByCoordinator(session: Session, node: string): Promise<Uint8Array | undefined> {
  const coordinator = session.coordinator();
  try {
    for (let cursor: string | undefined; ; ) {
      const page = await coordinator.listNodes({
        limit: 500,
        ...(cursor === undefined ? {} : { cursor }),
      });
      const found = page.items.find(({ id }) => id === node);
      const publicKey = found === undefined ? undefined : fromBase64(found.publicKey);
      if (publicKey !== undefined && nodeIdOf(nodeVerifier, publicKey) === node) return publicKey;
      if (page.nextCursor === null) return undefined;
      cursor = page.nextCursor;
    }
  } catch (error) {
    if (isHyphaError(error)) return undefined;
    throw error;
  }
}
