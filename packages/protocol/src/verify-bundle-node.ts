import type { AuditBundle } from './api.ts';
import type { Authority } from './authority.ts';
import type { Verifier } from './crypto-port.ts';
import type { Envelope } from './dsse.ts';
import { HyphaError } from './hypha-error.ts';
import { findUsableKey } from './usable-key.ts';
import { type VerifiedAdmission, verifyAdmission } from './verify-admission.ts';
import type { BundleLog } from './verify-bundle-log.ts';
import {
  type ReplaceableNode,
  type VerifiedEnrolment,
  verifyEnrolment,
} from './verify-enrolment.ts';

export interface BundleSource {
  readonly bundle: AuditBundle;
  /** The newest of the bundle. */
  readonly authority: Authority;
  /** Null in a bundle of version 1: then order and revocation cannot be told. */
  readonly log: BundleLog | null;
}

export interface Placed<T> {
  readonly statement: T;
  /** Place in the log; null when the bundle has none. */
  readonly index: number | null;
}

/**
 * The admission, at its place in the log: dating one back does not help whoever holds a revoked key.
 * @throws HyphaError the codes of `verifyAdmission`, `E_PROOF`, `E_KEY_REVOKED`
 */
export function checkBundleAdmission(
  verifier: Verifier,
  { bundle, authority, log }: BundleSource,
): Placed<VerifiedAdmission> {
  const { admission: envelope } = bundle;
  const index = log?.indexOf(envelope, 'admission', 'the admission') ?? null;
  const then = authorityAt(index, { authority, log });
  const statement = verifyAdmission(verifier, { envelope, authority: then, profile: 'audit' });
  if (index !== null) checkNotRevoked(then, statement);
  return { statement, index };
}

/**
 * The enrolment of the node the receipt is by, and before it those of the nodes it replaced: each under
 * this admission and behind what it builds on.
 * @throws HyphaError the codes of `verifyEnrolment`, `E_PROOF`, `E_KEY_REVOKED`, `E_CONFLICT`
 */
export function checkBundleEnrolment(
  verifier: Verifier,
  source: BundleSource,
  admission: Placed<VerifiedAdmission>,
): Placed<VerifiedEnrolment> {
  const { bundle } = source;
  const nodes = new Map<string, ReplaceableNode>();
  let before = admission.index;
  for (const envelope of bundle.v === 2 ? bundle.replaced : []) {
    const { statement, index } = checkOne(verifier, source, { envelope, admission, nodes, before });
    const { node, publicKey } = statement;
    nodes.set(node, { publicKey, admission: statement.admission.digest });
    before = index;
  }
  const { enrolment: envelope } = bundle;
  return checkOne(verifier, source, { envelope, admission, nodes, before });
}

function checkOne(
  verifier: Verifier,
  source: BundleSource,
  input: {
    readonly envelope: Envelope;
    readonly admission: Placed<VerifiedAdmission>;
    /** By id, of enrolments before this one. */
    readonly nodes: ReadonlyMap<string, ReplaceableNode>;
    /** What it has to be behind. */
    readonly before: number | null;
  },
): Placed<VerifiedEnrolment> {
  const { envelope, admission, nodes, before } = input;
  const index = source.log?.indexOf(envelope, 'enrol', 'the enrolment') ?? null;
  const then = authorityAt(index, source);
  const statement = verifyEnrolment(verifier, {
    envelope,
    authority: then,
    profile: 'audit',
    findReplaced: (node) => nodes.get(node),
  });
  const { digest } = statement.admission;
  if (digest !== admission.statement.digest) {
    throw new HyphaError(
      'E_CONFLICT',
      `the enrolment of ${statement.node} is under admission ${digest}, shown is ${admission.statement.digest}`,
      { where: { path: 'enrolment.admission' } },
    );
  }
  checkIsBehind(`the enrolment of ${statement.node}`, index, 'what it builds on', before);
  // Who was let in before keeps the place also when the admin is gone; nobody new comes in.
  if (index !== null && statement.payload.replaces === undefined)
    checkNotRevoked(then, statement.admission);
  return { statement, index };
}

/** @throws HyphaError `E_PROOF` when the log has it the other way round */
export function checkIsBehind(
  what: string,
  index: number | null,
  after: string,
  before: number | null,
): void {
  if (index === null || before === null || index > before) return;
  throw new HyphaError(
    'E_PROOF',
    `${what} is entry ${index} of the log, ${after} is only entry ${before}`,
    { where: { path: 'proofs' } },
  );
}

function authorityAt(
  index: number | null,
  { authority, log }: Pick<BundleSource, 'authority' | 'log'>,
): Authority {
  return index === null || log === null ? authority : log.authorityAt(index);
}

function checkNotRevoked(then: Authority, { keyids }: VerifiedAdmission): void {
  for (const keyid of keyids) findUsableKey(then, keyid);
}
