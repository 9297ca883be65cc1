import { setTimeout as delay } from 'node:timers/promises';
import type { RunsClient } from '@hypha/client';
import {
  type AuditBundle,
  EnrolPayload,
  type Envelope,
  fromBase64,
  HyphaError,
  parseStrictJson,
} from '@hypha/protocol';
import { fetchAuthority } from './commands/authority.ts';
import { allPages, type Session } from './session.ts';

const RECEIPT_WAIT_MS_MAX = 15_000;
const RECEIPT_POLL_MS = 100;

/** A receipt follows the end of a run by a moment: it is signed, made durable and carried here first. */
export async function waitForReceipt(reader: RunsClient, run: string): Promise<Envelope> {
  const deadline = performance.now() + RECEIPT_WAIT_MS_MAX;
  for (;;) {
    try {
      return await reader.receipt(run);
    } catch (error) {
      const early = error instanceof HyphaError && error.code === 'E_NOT_FOUND';
      if (!early || performance.now() > deadline) throw error;
      await delay(RECEIPT_POLL_MS);
    }
  }
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
  const [authority, submission, journal, enrolments] = await Promise.all([
    fetchAuthority(session),
    reader.envelope(run),
    allPages((cursor) => reader.journal(run, { cursor, limit: 500 })),
    allPages((cursor) =>
      ledger.listEntries({ kind: 'enrol', node: view.node, cursor, limit: 500 }),
    ),
  ]);
  const enrolment = enrolments.at(-1)?.envelope;
  const [genesis, ...updates] = authority.updates;
  if (enrolment === undefined || genesis === undefined) {
    throw new HyphaError('E_NOT_FOUND', `the ledger has no enrolment of node ${view.node}`);
  }
  const { admission } = EnrolPayload.parse(parseStrictJson(fromBase64(enrolment.payload)));
  if (admission === undefined) {
    throw new HyphaError('E_NOT_FOUND', `the enrolment of node ${view.node} has no admission`);
  }
  return { v: 1, genesis, authority: updates, admission, enrolment, submission, journal, receipt };
}
