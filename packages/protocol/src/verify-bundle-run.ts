import type { AuditBundle } from './api.ts';
import type { Authority } from './authority.ts';
import { canonicalJson } from './canonical-json.ts';
import type { Verifier } from './crypto-port.ts';
import { hex, utf8 } from './encoding.ts';
import { HyphaError } from './hypha-error.ts';
import {
  type BodyOf,
  firstBrokenEvent,
  type JournalEvent,
  type JournalType,
} from './journal-event.ts';
import { LIMITS } from './limits.ts';
import type { ReceiptPayload } from './receipt-payload.ts';
import { type VerifiedScript, verifyScript } from './verify-script.ts';

/** Its events are this run's, chained, and whole. Answers how many. Throws `E_CONFLICT`. */
export function checkBundleJournal(
  verifier: Verifier,
  { journal }: AuditBundle,
  run: string,
): number {
  const broken = firstBrokenEvent(verifier, journal);
  if (broken !== null) refuse('journal', `event ${broken} of the journal does not hold`);
  const stranger = journal.find((event) => event.run !== run);
  if (stranger !== undefined)
    refuse('journal', `event ${stranger.seq} of the journal belongs to ${stranger.run}`);
  if (journal[0]?.body.type !== 'accepted')
    refuse('journal', 'the journal does not start with accepted');
  if (journal.at(-1)?.body.type !== 'finished')
    refuse('journal', 'the journal does not end with finished');
  return journal.length;
}

export interface BundleAcceptance {
  /** By the node's clock, epoch milliseconds. */
  readonly atMs: number;
  /** The node's clock showed a time before the envelope was signed, by this many seconds. */
  readonly behindSeconds: number;
}

/**
 * The node accepted exactly this envelope, while it was valid and its keys were. That its clock was behind is
 * no fault: it accepted by what the ledger last signed, and nothing can be accepted before it exists.
 * @throws HyphaError `E_CONFLICT`, and the codes of `verifyScript` as they were due then
 */
export function checkBundleAccepted(
  verifier: Verifier,
  bundle: AuditBundle,
  known: {
    readonly submission: VerifiedScript;
    /** As it was when the node accepted. */
    readonly authority: Authority;
    readonly node: string;
    readonly realms: readonly string[];
  },
): BundleAcceptance {
  const { submission, authority, node, realms } = known;
  const event = findEvent(bundle, 'accepted');
  const accepted = findBody(bundle, 'accepted');
  const { payload, digest, keyids, envelope } = submission;
  const { realm, deployment, generation, mode, iat, nbf, exp } = payload;
  const expected = { realm, deployment, generation, mode, node, envelopeDigest: digest };
  expectFields('accepted', expected, accepted ?? {});
  expectSame('accepted.keyids', 'its signers', accepted?.keyids.join(), keyids.join());
  const atMs = event?.at ?? 0;
  const at = Math.floor(atMs / 1000);
  const signedAt = Math.max(iat, nbf);
  const begin = signedAt - LIMITS.skewSeconds;
  // It was judged a moment before it was written down.
  const end = at < exp + LIMITS.skewSeconds ? Math.min(at, exp - 1) : at;
  verifyScript(verifier, {
    envelope,
    authority,
    profile: 'admit',
    nowSeconds: at < begin ? signedAt : end,
    node: { id: node, realms },
  });
  return { atMs, behindSeconds: Math.max(0, begin - at) };
}

/** The receipt says of the run what the journal says. Throws `E_CONFLICT`. */
export function checkBundleBinding(
  verifier: Verifier,
  bundle: AuditBundle,
  receipt: ReceiptPayload,
): ReceiptPayload {
  const head = bundle.journal.at(-1);
  const accepted = findBody(bundle, 'accepted');
  const committed = findBody(bundle, 'committed');
  const finished = findBody(bundle, 'finished');
  const outcomes = bundle.journal.filter(
    ({ body }) => body.type === 'step-result' || body.type === 'step-error',
  );
  if (committed !== undefined) {
    const actual = hex(verifier.sha256(utf8(committed.output)));
    expectSame('journal.output', 'the hash of the output', committed.outputSha256, actual);
  }
  const { envelopeDigest, node, realm, deployment, generation, mode } = accepted ?? {};
  expectFields(
    'receipt',
    {
      run: head?.run,
      envelopeDigest,
      node,
      realm,
      deployment,
      generation,
      mode,
      journalHead: head?.hash,
      outputSha256: committed?.outputSha256,
      state: finished?.state,
      undone: finished?.undone,
      steps: outcomes.length,
    },
    receipt,
  );
  if (canonicalJson(receipt.leftovers) !== canonicalJson(finished?.leftovers ?? []))
    refuse('receipt.leftovers', 'the receipt names other leftovers than the journal');
  return receipt;
}

function findEvent(bundle: AuditBundle, type: JournalType): JournalEvent | undefined {
  return bundle.journal.find(({ body }) => body.type === type);
}

export function findBody<T extends JournalType>(
  bundle: AuditBundle,
  type: T,
): BodyOf<T> | undefined {
  return findEvent(bundle, type)?.body as BodyOf<T> | undefined; // found by that very type
}

function expectFields(
  where: string,
  expected: Readonly<Record<string, unknown>>,
  actual: Readonly<Record<string, unknown>>,
): void {
  for (const [name, value] of Object.entries(expected))
    expectSame(`${where}.${name}`, `${where} ${name}`, actual[name], value);
}

function expectSame(path: string, what: string, actual: unknown, expected: unknown): void {
  if (actual === expected) return;
  refuse(path, `${what} is ${String(actual)}, expected ${String(expected)}`);
}

function refuse(path: string, message: string): never {
  throw new HyphaError('E_CONFLICT', message, {
    where: { path },
    hint: 'something in the bundle was changed or does not belong to it',
  });
}
