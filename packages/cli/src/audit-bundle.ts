import { setTimeout as delay } from 'node:timers/promises';
import type { LedgerClient, RunsClient } from '@hypha/client';
import {
  type AuditBundle,
  type Authority,
  type Checkpoint,
  checkpointOrigin,
  EnrolPayload,
  type EntryProof,
  type Envelope,
  envelopeDigest,
  fromBase64,
  HyphaError,
  isHyphaError,
  type PayloadKind,
  parseStrictJson,
  verifyCheckpoint,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { fetchAuthority } from './authority-chain.ts';
import { allPages, type Session } from './session.ts';

const WAIT_MS_MAX = 15_000;
const POLL_MS = 100;
/** A node that replaced one that replaced one …: more are not followed. */
const REPLACED_MAX = 256;
const AT_ONCE = 16;

/** Tries again while the answer is that something is not there yet. */
async function waitFor<T>(ask: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + WAIT_MS_MAX;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!isHyphaError(error, 'E_NOT_FOUND') || performance.now() > deadline) throw error;
      await delay(POLL_MS);
    }
  }
}

/** A receipt follows the end of a run by a moment: it is signed, made durable and carried here first. */
export function waitForReceipt(reader: RunsClient, run: string): Promise<Envelope> {
  return waitFor(() => reader.receipt(run));
}

/** Collects from ledger and coordinator (or node) all that proves one run; nothing in it is trusted. */
export async function collectBundle(
  session: Session,
  reader: RunsClient,
  run: string,
): Promise<AuditBundle> {
  const ledger = session.ledger();
  const receipt = await waitForReceipt(reader, run);
  const view = await reader.run(run);
  const index = await waitForEntry(ledger, receipt, 'receipt');
  const [{ authority, checkpoint }, submission, journal, enrolments] = await Promise.all([
    findHead(session, index),
    reader.envelope(run),
    allPages((cursor) => reader.journal(run, { cursor, limit: 500 })),
    findEnrolments(ledger, view.node),
  ]);
  const enrolment = enrolments.at(-1);
  const [genesis, ...updates] = authority.updates;
  if (enrolment === undefined || genesis === undefined) {
    throw new HyphaError('E_NOT_FOUND', `the ledger has no enrolment of node ${view.node}`);
  }
  const { admission } = readEnrolment(enrolment);
  if (admission === undefined) {
    throw new HyphaError('E_NOT_FOUND', `the enrolment of node ${view.node} has no admission`);
  }
  const logged: [Envelope, PayloadKind][] = [
    ...authority.updates.map((update): [Envelope, PayloadKind] => [update, 'authority']),
    [admission, 'admission'],
    ...enrolments.map((each): [Envelope, PayloadKind] => [each, 'enrol']),
    [receipt, 'receipt'],
  ];
  return {
    v: 2,
    ...{ genesis, authority: updates, admission, enrolment, submission, journal, receipt },
    replaced: enrolments.slice(0, -1),
    checkpoint: checkpoint.note,
    proofs: await prove(ledger, logged, checkpoint.size),
  };
}

/** Its place, once the node has brought it to the ledger. */
async function waitForEntry(
  ledger: LedgerClient,
  envelope: Envelope,
  kind: PayloadKind,
): Promise<number> {
  const digest = envelopeDigest(nodeVerifier, envelope, kind);
  return (await waitFor(() => ledger.inclusion({ digest }))).index;
}

/** A checkpoint that covers this entry, and the authority as it was then. */
async function findHead(
  session: Session,
  index: number,
): Promise<{ readonly authority: Authority; readonly checkpoint: Checkpoint }> {
  const { note } = await waitFor(async () => {
    const { checkpoint } = await session.ledger().checkpoint();
    const size = Number(checkpoint.split('\n')[1]);
    if (size > index) return { note: checkpoint };
    throw new HyphaError('E_NOT_FOUND', `the checkpoint of ${size} entries ends before ${index}`);
  });
  // Read after the note, so it holds at least what that names.
  const newest = await fetchAuthority(session);
  const origin = checkpointOrigin(newest.genesisHash);
  const publicKey = newest.ledgerKey?.publicKey ?? new Uint8Array();
  const checkpoint = verifyCheckpoint(nodeVerifier, note, { origin, publicKey });
  return { authority: newest.at(checkpoint.authority.seq), checkpoint };
}

/** The node's first, and before it those of the nodes it replaced by their own signature; oldest first. */
async function findEnrolments(ledger: LedgerClient, node: string): Promise<Envelope[]> {
  const found: Envelope[] = [];
  for (let wanted: string | undefined = node; wanted !== undefined; ) {
    const { items } = await ledger.listEntries({ kind: 'enrol', node: wanted, limit: 1 });
    const [first] = items;
    if (first === undefined || found.length > REPLACED_MAX) break;
    found.unshift(first.envelope);
    wanted = readEnrolment(first.envelope).replaces;
  }
  return found;
}

async function prove(
  ledger: LedgerClient,
  logged: readonly [Envelope, PayloadKind][],
  size: number,
): Promise<EntryProof[]> {
  const proofs: EntryProof[] = [];
  for (let at = 0; at < logged.length; at += AT_ONCE) {
    const some = logged.slice(at, at + AT_ONCE).map(async ([envelope, kind]) => {
      const digest = envelopeDigest(nodeVerifier, envelope, kind);
      const { index, proof } = await ledger.inclusion({ digest, size });
      return { digest, index, proof };
    });
    proofs.push(...(await Promise.all(some)));
  }
  return proofs;
}

function readEnrolment(envelope: Envelope): EnrolPayload {
  return EnrolPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
}
