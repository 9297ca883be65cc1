/** Who has signed an envelope and who still has to, as the authority stands that came with it. */
import {
  Authority,
  type AuthorityChange,
  type Envelope,
  findScopeFault,
  type KeyRecord,
  type ScriptPayload,
  signaturesNeeded,
  verifyAdmission,
  verifyScript,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { type NamedKey, nameRoots, rootsOf } from './authority-change.ts';
import type { SignedPayload } from './signed-payload.ts';

/** A set of keys of which some have to sign. */
export interface SignatureGroup {
  /** `operators`, `root keys`, `new root keys`, `admins`, `the key itself`. */
  readonly who: string;
  readonly needed: number;
  readonly signed: readonly NamedKey[];
  /** Any of these may still sign. */
  readonly others: readonly NamedKey[];
}

export interface SignatureCount {
  /** All of them have to be full. */
  readonly groups: readonly SignatureGroup[];
  readonly complete: boolean;
}

interface Requirement {
  readonly who: string;
  readonly needed: number;
  readonly keys: readonly NamedKey[];
}

/**
 * @param authority as the file carries it; a genesis needs none, because it carries its own keys. Undefined is
 *   answered when it is missing: then nobody can tell.
 * @throws HyphaError once enough have signed and it does not hold all the same: what the receiver would answer
 */
export function countSignatures(
  envelope: Envelope,
  item: SignedPayload,
  authority: Authority | undefined,
): SignatureCount | undefined {
  const keyids = new Set(envelope.signatures.map(({ keyid }) => keyid));
  const ways = waysToSign(item, authority)?.map((way) =>
    way.map(
      ({ who, needed, keys }): SignatureGroup => ({
        who,
        needed,
        signed: keys.filter(({ keyid }) => keyids.has(keyid)),
        others: keys.filter(({ keyid }) => !keyids.has(keyid)),
      }),
    ),
  );
  if (ways === undefined) return undefined;
  const full = ways.find((way) => way.every(({ signed, needed }) => signed.length >= needed));
  if (full !== undefined) {
    verifyWhole(envelope, item, authority);
    return { groups: full, complete: true };
  }
  const begun = ways.find((way) => way.some(({ signed }) => signed.length > 0));
  return { groups: begun ?? ways[0] ?? [], complete: false };
}

/** Keys that have a part in this envelope, by what the authority calls them. Undefined: cannot be told. */
export function signersOf(
  item: SignedPayload,
  authority: Authority | undefined,
): NamedKey[] | undefined {
  return waysToSign(item, authority)?.flatMap((way) => way.flatMap(({ keys }) => keys));
}

/** `root keys: 1 of 2 (ada); still 1 of: bob, cleo` */
export function describeGroup({ who, needed, signed, others }: SignatureGroup): string {
  const have = signed.length === 0 ? '' : ` (${namesOf(signed)})`;
  const missing = needed - signed.length;
  const still =
    missing <= 0 ? '' : `; still ${missing} of: ${namesOf(others) || 'nobody who could'}`;
  return `${who}: ${signed.length} of ${needed}${have}${still}`;
}

const NAMES_SHOWN_MAX = 16;

function namesOf(keys: readonly NamedKey[]): string {
  const names = keys.slice(0, NAMES_SHOWN_MAX).map(({ name }) => name);
  return [...names, ...(keys.length > names.length ? ['…'] : [])].join(', ');
}

/** Any one of these sets of requirements is enough. */
function waysToSign(
  item: SignedPayload,
  authority: Authority | undefined,
): Requirement[][] | undefined {
  if (isGenesis(item)) {
    const { threshold, rootKeys } = item.payload.change;
    return [[{ who: 'root keys', needed: threshold, keys: nameRoots(rootKeys) }]];
  }
  if (authority === undefined) return undefined;
  switch (item.kind) {
    case 'script': {
      const needed = signaturesNeeded(item.payload, authority.policy);
      return [[{ who: 'operators', needed, keys: operatorsOf(item.payload, authority) }]];
    }
    case 'admission':
      return [[{ who: 'admins', needed: 1, keys: adminsOf(authority) }]];
    case 'authority':
      return waysToChange(item.payload.change, authority);
  }
}

export function isGenesis(item: SignedPayload): item is GenesisPayload {
  return item.kind === 'authority' && item.payload.change.type === 'genesis';
}

type ChangeOf<T extends AuthorityChange['type']> = Extract<AuthorityChange, { type: T }>;
type GenesisPayload = Extract<SignedPayload, { kind: 'authority' }> & {
  readonly payload: { readonly change: ChangeOf<'genesis'> };
};

/** Roots may change anything; some things an admin may too, and a key may always revoke itself. */
function waysToChange(change: AuthorityChange, authority: Authority): Requirement[][] {
  const roots = { who: 'root keys', needed: authority.threshold, keys: rootsOf(authority) };
  const admins = { who: 'admins', needed: 1, keys: adminsOf(authority) };
  switch (change.type) {
    case 'rotate-root': {
      const incoming = nameRoots(change.rootKeys);
      return [[roots, { who: 'new root keys', needed: change.threshold, keys: incoming }]];
    }
    case 'grant':
      return isGoverned(change.grant.role) ? [[admins], [roots]] : [[roots]];
    case 'revoke': {
      const target = authority.findKey(change.keyid);
      const self = target === undefined ? [] : [nameOf(target)];
      const itself = { who: 'the key itself', needed: 1, keys: self };
      return isGoverned(target?.grant.role) ? [[admins], [roots], [itself]] : [[roots], [itself]];
    }
    case 'revoke-node':
      return [[admins], [roots]];
    case 'genesis':
    case 'set-ledger-key':
    case 'set-policy':
      return [[roots]];
  }
}

function isGoverned(role: string | undefined): boolean {
  return role === 'operator' || role === 'viewer';
}

function operatorsOf(payload: ScriptPayload, authority: Authority): NamedKey[] {
  return activeKeys(authority)
    .filter(({ grant }) => findScopeFault(payload, grant) === undefined)
    .map(nameOf);
}

function adminsOf(authority: Authority): NamedKey[] {
  return activeKeys(authority)
    .filter(({ grant }) => grant.role === 'admin')
    .map(nameOf);
}

function activeKeys(authority: Authority): KeyRecord[] {
  return authority.listKeys().filter(({ status }) => status === 'active');
}

function nameOf({ keyid, publicKey, grant }: KeyRecord): NamedKey {
  return { keyid, publicKey, name: grant.name };
}

/** As the receiver will, but for clocks and freshness, which are judged when it is sent. */
function verifyWhole(
  envelope: Envelope,
  item: SignedPayload,
  authority: Authority | undefined,
): void {
  if (authority === undefined || isGenesis(item)) {
    Authority.fromGenesis(nodeVerifier, envelope);
    return;
  }
  switch (item.kind) {
    case 'script':
      verifyScript(nodeVerifier, { envelope, authority, profile: 'execute', nowSeconds: 0 });
      break;
    case 'admission':
      verifyAdmission(nodeVerifier, { envelope, authority, profile: 'audit' });
      break;
    case 'authority':
      authority.apply(envelope);
  }
}
