/**
 * The offline audit of one run (design §8, G7): from a pinned genesis hash, through the keys and the
 * node, to what was signed, what the journal says happened and what the receipt attests. Needs nothing
 * but the bundle.
 */
import { AuditBundle } from './api.ts';
import { Authority } from './authority.ts';
import { canonicalJson } from './canonical-json.ts';
import type { Verifier } from './crypto-port.ts';
import { hex, utf8 } from './encoding.ts';
import { HyphaError, isHyphaError } from './hypha-error.ts';
import { runIdOf } from './ids.ts';
import { type BodyOf, firstBrokenEvent, type JournalType } from './journal-event.ts';
import type { ReceiptPayload } from './receipt-payload.ts';
import { verifyAdmission } from './verify-admission.ts';
import { verifyEnrolment } from './verify-enrolment.ts';
import { verifyReceipt } from './verify-receipt.ts';
import { verifyScript } from './verify-script.ts';
import { parseAs } from './wire.ts';

export interface BundleVerdict {
  readonly holds: boolean;
  /** What was checked and held, in order, one sentence each. */
  readonly checks: readonly string[];
  /** The first thing that does not hold; nothing after it was looked at. */
  readonly failure: {
    readonly check: BundleCheck;
    readonly code: string;
    readonly message: string;
  } | null;
  /** Once its signature held. */
  readonly receipt: ReceiptPayload | null;
}

export type BundleCheck =
  | 'bundle'
  | 'genesis'
  | 'authority'
  | 'admission'
  | 'enrolment'
  | 'submission'
  | 'run'
  | 'journal'
  | 'accepted'
  | 'receipt'
  | 'binding';

/** Never throws on a bad bundle: the verdict says what is wrong with it. */
export function verifyBundle(
  verifier: Verifier,
  input: {
    /** A parsed bundle; its shape is checked here. */
    readonly bundle: unknown;
    /** What the reader trusts, from a context or from paper. */
    readonly genesisHash: string;
  },
): BundleVerdict {
  const audit = new Audit();
  try {
    checkAll(verifier, input, audit);
    return audit.verdict(null);
  } catch (error) {
    if (!isHyphaError(error)) throw error;
    return audit.verdict(error);
  }
}

class Audit {
  readonly #checks: string[] = [];
  #current: BundleCheck = 'bundle';
  receipt: ReceiptPayload | null = null;

  /** Runs one check; `say` turns its result into the sentence that held. */
  check<T>(name: BundleCheck, run: () => T, say: (value: T) => string): T {
    this.#current = name;
    const value = run();
    this.#checks.push(say(value));
    return value;
  }

  verdict(error: HyphaError | null): BundleVerdict {
    return {
      holds: error === null,
      checks: this.#checks,
      failure:
        error === null ? null : { check: this.#current, code: error.code, message: error.message },
      receipt: this.receipt,
    };
  }
}

function checkAll(
  verifier: Verifier,
  input: { readonly bundle: unknown; readonly genesisHash: string },
  audit: Audit,
): void {
  const bundle = audit.check(
    'bundle',
    () => parseAs(AuditBundle, input.bundle, { code: 'E_PAYLOAD', what: 'the audit bundle' }),
    ({ journal }) => `the bundle is whole and has ${journal.length} journal events`,
  );
  const genesis = audit.check(
    'genesis',
    () => Authority.fromGenesis(verifier, bundle.genesis, input.genesisHash),
    ({ threshold, rootKeyIds }) =>
      `the genesis is the pinned one, signed by ${threshold} or more of its ${rootKeyIds.length} root keys`,
  );
  const authority = audit.check(
    'authority',
    () => genesis.extend(bundle.authority),
    ({ seq, head }) =>
      `the authority chain is unbroken from there to update ${seq} (${short(head)})`,
  );
  const node = checkNode(verifier, bundle, authority, audit);
  const { receipt } = checkRun(verifier, bundle, { authority, ...node }, audit);
  audit.check(
    'binding',
    () => checkBinding(verifier, bundle, receipt),
    ({ state, steps }) =>
      `the receipt binds envelope, journal head and output: ${state} after ${steps} ${steps === 1 ? 'step' : 'steps'}`,
  );
}

function checkNode(
  verifier: Verifier,
  bundle: AuditBundle,
  authority: Authority,
  audit: Audit,
): { readonly node: string; readonly publicKey: Uint8Array; readonly realms: readonly string[] } {
  const admission = audit.check(
    'admission',
    () => verifyAdmission(verifier, { envelope: bundle.admission, authority, profile: 'audit' }),
    ({ payload, grant }) => `the admin ${grant.name} admitted a node as ${payload.name}`,
  );
  const { node, publicKey } = audit.check(
    'enrolment',
    () => {
      const { enrolment: envelope } = bundle;
      const enrolment = verifyEnrolment(verifier, { envelope, authority, profile: 'audit' });
      const { digest } = enrolment.admission;
      expectSame('enrolment.admission', 'its admission', digest, admission.digest);
      return enrolment;
    },
    (enrolment) => `node ${enrolment.node} enrolled under that admission with its own key`,
  );
  return { node, publicKey, realms: admission.payload.realms };
}

function checkRun(
  verifier: Verifier,
  bundle: AuditBundle,
  known: {
    readonly authority: Authority;
    readonly node: string;
    readonly publicKey: Uint8Array;
    readonly realms: readonly string[];
  },
  audit: Audit,
): { readonly receipt: ReceiptPayload } {
  const { authority, node, publicKey, realms } = known;
  const accepted = findBody(bundle, 'accepted');
  const submission = audit.check(
    'submission',
    () =>
      verifyScript(verifier, {
        envelope: bundle.submission,
        // The keys as they stood when the node accepted it: a later revocation does not undo a run.
        authority: authority.at(accepted?.authoritySeq ?? authority.seq),
        profile: 'execute',
        nowSeconds: 0,
        node: { id: node, realms },
      }),
    ({ grants, payload }) =>
      `${grants.map(({ name }) => name).join(' and ')} signed revision ${payload.id} of ${payload.realm}/${payload.deployment} within scope, addressed to this node`,
  );
  const run = audit.check(
    'run',
    () => runIdOf(verifier, submission.digest, node),
    (id) => `envelope and node make the run ${id}`,
  );
  audit.check(
    'journal',
    () => checkJournal(verifier, bundle, run),
    (count) => `the ${count} journal events form one unbroken chain`,
  );
  audit.check(
    'accepted',
    () => {
      const { payload, digest, keyids } = submission;
      const { realm, deployment, generation, mode } = payload;
      const expected = { realm, deployment, generation, mode, node, envelopeDigest: digest };
      expectFields('accepted', expected, accepted ?? {});
      expectSame('accepted.keyids', 'its signers', accepted?.keyids.join(), keyids.join());
    },
    () => 'the journal starts with accepting exactly this envelope',
  );
  const { payload: receipt } = audit.check(
    'receipt',
    () => verifyReceipt(verifier, { envelope: bundle.receipt, publicKey }),
    ({ payload }) => `receipt ${payload.seq} is signed by the key the node enrolled with`,
  );
  audit.receipt = receipt;
  return { receipt };
}

function checkJournal(verifier: Verifier, { journal }: AuditBundle, run: string): number {
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

function checkBinding(
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

function findBody<T extends JournalType>(bundle: AuditBundle, type: T): BodyOf<T> | undefined {
  const event = bundle.journal.find(({ body }) => body.type === type);
  return event?.body as BodyOf<T> | undefined; // the predicate above picked this variant
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

function short(digest: string): string {
  return `${digest.slice(0, 12)}…`;
}
