/**
 * The offline audit of one run (design §8, G7): from a pinned genesis hash, through the keys, the log and
 * the node, to what was signed, what the journal says happened and what the receipt attests. Needs nothing
 * but the bundle.
 */
import { AuditBundle } from './api.ts';
import { Authority } from './authority.ts';
import type { Checkpoint } from './checkpoint.ts';
import type { Verifier } from './crypto-port.ts';
import { HyphaError, isHyphaError } from './hypha-error.ts';
import { runIdOf } from './ids.ts';
import type { ReceiptPayload } from './receipt-payload.ts';
import { BundleLog, checkBundleCheckpoint } from './verify-bundle-log.ts';
import {
  type BundleSource,
  checkBundleAdmission,
  checkBundleEnrolment,
  checkIsBehind,
  type Placed,
} from './verify-bundle-node.ts';
import {
  checkBundleAccepted,
  checkBundleBinding,
  checkBundleJournal,
  findBody,
} from './verify-bundle-run.ts';
import type { VerifiedEnrolment } from './verify-enrolment.ts';
import { verifyReceipt } from './verify-receipt.ts';
import { verifyScript } from './verify-script.ts';
import { parseAs } from './wire.ts';

export interface BundleVerdict {
  readonly holds: boolean;
  /** What was checked and held, in order, one sentence each. */
  readonly checks: readonly string[];
  /** What the bundle leaves open by its version. */
  readonly remarks: readonly string[];
  /** The first thing that does not hold; nothing after it was looked at. */
  readonly failure: {
    readonly check: BundleCheck;
    readonly code: string;
    readonly message: string;
  } | null;
  /** Once its signature held. */
  readonly receipt: ReceiptPayload | null;
  /** Once it held: how much of the log is known, and as of when. */
  readonly checkpoint: Checkpoint | null;
}

export type BundleCheck =
  | 'bundle'
  | 'genesis'
  | 'authority'
  | 'checkpoint'
  | 'log'
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
  readonly #remarks: string[] = [];
  receipt: ReceiptPayload | null = null;
  checkpoint: Checkpoint | null = null;

  /** Runs one check; `say` turns its result into the sentence that held. */
  check<T>(name: BundleCheck, run: () => T, say: (value: T) => string): T {
    this.#current = name;
    const value = run();
    this.#checks.push(say(value));
    return value;
  }

  remark(sentence: string): void {
    this.#remarks.push(sentence);
  }

  verdict(error: HyphaError | null): BundleVerdict {
    return {
      holds: error === null,
      checks: this.#checks,
      remarks: this.#remarks,
      failure:
        error === null ? null : { check: this.#current, code: error.code, message: error.message },
      receipt: this.receipt,
      checkpoint: this.checkpoint,
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
  const source = { bundle, authority, log: checkLog(verifier, bundle, authority, audit) };
  const enrolment = checkNode(verifier, source, audit);
  const receipt = checkRun(verifier, source, enrolment, audit);
  audit.check(
    'binding',
    () => checkBundleBinding(verifier, bundle, receipt),
    ({ state, steps }) =>
      `the receipt binds envelope, journal head and output: ${state} after ${steps} ${steps === 1 ? 'step' : 'steps'}`,
  );
}

function checkLog(
  verifier: Verifier,
  bundle: AuditBundle,
  authority: Authority,
  audit: Audit,
): BundleLog | null {
  if (bundle.v === 1) {
    audit.remark(
      'a bundle of version 1 carries no proof from the log: not that the ledger holds any of it, nor in which order, nor that no revocation is missing',
    );
    return null;
  }
  const checkpoint = audit.check(
    'checkpoint',
    () => checkBundleCheckpoint(verifier, bundle, authority),
    ({ size, root, time }) =>
      `the ledger signed the log of ${size} entries with root ${short(root)} at ${dateOf(time * 1000)}, and no authority update of it is missing here`,
  );
  audit.checkpoint = checkpoint;
  return audit.check(
    'log',
    () => new BundleLog(verifier, bundle, { authority, checkpoint }),
    () => `all ${authority.seq + 1} authority updates are in that log, in their order`,
  );
}

function checkNode(
  verifier: Verifier,
  source: BundleSource,
  audit: Audit,
): Placed<VerifiedEnrolment> {
  const admission = audit.check(
    'admission',
    () => checkBundleAdmission(verifier, source),
    ({ statement: { grant, payload }, index }) =>
      `the admin ${grant.name} admitted a node as ${payload.name}${index === null ? '' : `, entry ${index} of the log, with a key that was not revoked by then`}`,
  );
  return audit.check(
    'enrolment',
    () => checkBundleEnrolment(verifier, source, admission),
    ({ statement: { node }, index }) =>
      `node ${node} enrolled under that admission with its own key${index === null ? '' : `, entry ${index} of the log`}`,
  );
}

function checkRun(
  verifier: Verifier,
  source: BundleSource,
  enrolment: Placed<VerifiedEnrolment>,
  audit: Audit,
): ReceiptPayload {
  const { bundle, authority: newest } = source;
  const { node, admission } = enrolment.statement;
  const { realms } = admission.payload;
  const { authority, submission } = audit.check(
    'submission',
    () => {
      // The keys as they stood when the node accepted it: a later revocation does not undo a run.
      const then = newest.at(findBody(bundle, 'accepted')?.authoritySeq ?? newest.seq);
      const verified = verifyScript(verifier, {
        envelope: bundle.submission,
        authority: then,
        profile: 'execute',
        nowSeconds: 0,
        node: { id: node, realms },
      });
      return { authority: then, submission: verified };
    },
    ({ submission: { grants, payload } }) =>
      `${grants.map(({ name }) => name).join(' and ')} signed revision ${payload.id} of ${payload.realm}/${payload.deployment} within scope, addressed to this node`,
  );
  const run = audit.check(
    'run',
    () => runIdOf(verifier, submission.digest, node),
    (id) => `envelope and node make the run ${id}`,
  );
  audit.check(
    'journal',
    () => checkBundleJournal(verifier, bundle, run),
    (count) => `the ${count} journal events form one unbroken chain`,
  );
  const { behindSeconds } = audit.check(
    'accepted',
    () => checkBundleAccepted(verifier, bundle, { submission, authority, node, realms }),
    ({ atMs }) =>
      `the journal starts with accepting exactly this envelope, at ${dateOf(atMs)}, while it and its keys were valid`,
  );
  if (behindSeconds > 0)
    audit.remark(`the clock of the node was at least ${behindSeconds} s behind when it accepted`);
  const { payload } = audit.check(
    'receipt',
    () => checkReceipt(verifier, source, enrolment),
    (receipt) =>
      `receipt ${receipt.payload.seq} is signed by the key the node enrolled with${receipt.index === null ? '' : `, entry ${receipt.index} of the log`}`,
  );
  audit.receipt = payload;
  return payload;
}

function checkReceipt(
  verifier: Verifier,
  { bundle, log }: BundleSource,
  enrolment: Placed<VerifiedEnrolment>,
): { readonly payload: ReceiptPayload; readonly index: number | null } {
  const { receipt: envelope } = bundle;
  const { node, publicKey } = enrolment.statement;
  const { payload } = verifyReceipt(verifier, { envelope, publicKey });
  if (log === null) return { payload, index: null };
  const index = log.indexOf(envelope, 'receipt', 'the receipt');
  checkIsBehind('the receipt', index, 'the enrolment of its node', enrolment.index);
  if (log.authorityAt(index).isNodeRevoked(node)) {
    throw new HyphaError('E_KEY_REVOKED', `node ${node} was revoked before entry ${index}`, {
      where: { path: 'receipt' },
    });
  }
  return { payload, index };
}

function short(digest: string): string {
  return `${digest.slice(0, 12)}…`;
}

function dateOf(epochMs: number): string {
  return new Date(epochMs).toISOString();
}
