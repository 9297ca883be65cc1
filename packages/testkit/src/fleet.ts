/** A fleet of throw-away keys, for tests that sign. */
import { randomBytes } from 'node:crypto';
import {
  Authority,
  type AuthorityChange,
  base64,
  base64url,
  buildAdmissionPayload,
  buildAuthorityPayload,
  buildGenesisPayload,
  buildScriptPayload,
  type Entropy,
  type Envelope,
  formatJoinToken,
  type Grant,
  type NodeFacts,
  type NodeId,
  nodeIdOf,
  type ScriptDraft,
  type ScriptPayload,
  type Signer,
  signAdmission,
  signAuthority,
  signEnrolment,
  signScript,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';

/** A key and the PEM text of its file. */
export interface TestKey extends Signer {
  readonly pem: string;
}

export interface TestFleet {
  readonly roots: readonly TestKey[];
  readonly admin: TestKey;
  readonly operator: TestKey;
  /** Signs checkpoints: `TestLog`. */
  readonly ledgerKey: TestKey;
  readonly genesis: Envelope;
  /** Genesis, the key of the ledger, then the admin and the operator, both granted everything for a day. */
  readonly authority: Authority;
}

/** A node as its admission makes it. */
export interface TestNode {
  readonly key: TestKey;
  readonly id: NodeId;
  readonly name: string;
  readonly realms: readonly string[];
  readonly admission: Envelope;
  /** Raw secret that spends the admission. */
  readonly token: Uint8Array;
}

const HOUR = 3600;

export function createKey(): TestKey {
  const { pem, signer } = generateKey();
  return { ...signer, pem };
}

export function entropyAt(nowMs: number): Entropy {
  return { nowMs, randomBytes: (count) => new Uint8Array(randomBytes(count)) };
}

const nowSeconds = () => Math.floor(Date.now() / 1000);

/** Everything, from an hour ago to tomorrow; narrowed by `overrides`. */
export function grantOf(key: Signer, overrides: Partial<Grant> = {}): Grant {
  return {
    publicKey: base64(key.publicKey),
    name: 'tess',
    role: 'operator',
    realms: ['*'],
    caps: ['*'],
    nodes: ['*'],
    limits: null,
    notBefore: nowSeconds() - HOUR,
    notAfter: nowSeconds() + 24 * HOUR,
    ...overrides,
  };
}

/** The envelope of an update that follows `authority`. */
export function signUpdate(
  authority: Authority,
  change: AuthorityChange,
  signers: readonly Signer[],
): Envelope {
  return signAuthority(buildAuthorityPayload(authority, change, nowSeconds()), signers);
}

export function createFleet(
  options: { readonly roots?: number; readonly threshold?: number } = {},
): TestFleet {
  const roots = Array.from({ length: options.roots ?? 1 }, createKey);
  const rootKeys = roots.map(({ publicKey }, index) => ({ publicKey, name: `root-${index}` }));
  const threshold = options.threshold ?? roots.length;
  const [admin, operator, ledgerKey] = [createKey(), createKey(), createKey()];
  const genesis = signAuthority(
    buildGenesisPayload({ rootKeys, threshold, nowSeconds: nowSeconds() }),
    roots,
  );
  const changes: readonly AuthorityChange[] = [
    { type: 'set-ledger-key', publicKey: base64(ledgerKey.publicKey) },
    { type: 'grant', grant: grantOf(admin, { role: 'admin', name: 'ada' }) },
    { type: 'grant', grant: grantOf(operator, { name: 'olivia' }) },
  ];
  const authority = changes.reduce(
    (state, change) => state.apply(signUpdate(state, change, roots)),
    Authority.fromGenesis(nodeVerifier, genesis),
  );
  return { roots, admin, operator, ledgerKey, genesis, authority };
}

/** A node that an admin of the fleet let in, not yet known to any ledger. */
export function admitNode(
  fleet: Pick<TestFleet, 'admin'>,
  options: {
    readonly name?: string;
    readonly realms?: readonly string[];
    readonly labels?: Readonly<Record<string, string>>;
    readonly lifetimeSeconds?: number;
  } = {},
): TestNode {
  const key = createKey();
  const name = options.name ?? 'node-1';
  const realms = options.realms ?? ['*'];
  const { payload, token } = buildAdmissionPayload(
    nodeVerifier,
    {
      name,
      realms,
      labels: { ...options.labels },
      lifetimeSeconds: options.lifetimeSeconds ?? HOUR,
    },
    entropyAt(Date.now()),
  );
  const admission = signAdmission(payload, fleet.admin);
  return { key, id: nodeIdOf(nodeVerifier, key.publicKey), name, realms, admission, token };
}

/** The text `hypha node add` would print for this node. */
export function joinTokenOf(
  fleet: Pick<TestFleet, 'authority'>,
  node: Pick<TestNode, 'admission' | 'token'>,
  urls: { readonly ledger: string; readonly coordinator: string },
): string {
  return formatJoinToken({
    secret: base64url(node.token),
    genesis: fleet.authority.genesisHash,
    ...urls,
    admission: node.admission,
  });
}

/** What the node posts to the ledger in answer to a challenge. */
export function enrolmentOf(
  node: TestNode,
  challenge: string = base64url(new Uint8Array(randomBytes(16))),
): Envelope {
  return signEnrolment(
    {
      v: 1,
      publicKey: base64(node.key.publicKey),
      sealKey: base64(createKey().publicKey),
      admission: node.admission,
      token: base64url(node.token),
      challenge,
      bootId: '00000000-0000-4000-8000-000000000000',
      iat: nowSeconds(),
      facts: FACTS,
    },
    node.key,
  );
}

export const FACTS: NodeFacts = {
  hostname: 'test-node',
  os: 'Test OS',
  kernel: '6.1.0',
  arch: 'x64',
  cpus: 4,
  memoryBytes: 8 * 2 ** 30,
  storageBytes: 64 * 2 ** 30,
  hyphaVersion: '0.1.0',
  nodeVersion: process.versions.node,
  cgroups: 'v2',
  sals: {
    volume: { state: 'simulated', driver: 'simulated' },
    container: { state: 'simulated', driver: 'simulated' },
    network: { state: 'simulated', driver: 'simulated' },
  },
};

export interface ScriptOptions {
  /** What the builder is asked for; at least the nodes. */
  readonly draft: Partial<ScriptDraft> & { readonly nodes: readonly string[] };
  /** Members replaced after it was built. */
  readonly payload?: Partial<ScriptPayload>;
  /** Default: the fleet's operator. */
  readonly signers?: readonly Signer[];
}

/** A valid script payload unless the options make it another. */
export function scriptPayloadOf(
  fleet: Pick<TestFleet, 'authority'>,
  { draft, payload }: Omit<ScriptOptions, 'signers'>,
): ScriptPayload {
  const built = buildScriptPayload(
    nodeVerifier,
    {
      deployment: 'web',
      generation: 1,
      authority: fleet.authority,
      source: 'export default () => null;\n',
      ...draft,
    },
    entropyAt(Date.now()),
  );
  return { ...built, ...payload };
}

export function signedScript(
  fleet: Pick<TestFleet, 'authority' | 'operator'>,
  options: ScriptOptions,
): Envelope {
  return signScript(scriptPayloadOf(fleet, options), options.signers ?? [fleet.operator]);
}
