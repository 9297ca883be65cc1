/** A small fleet with fixed keys and a fixed clock, so that every signature in a test is the same each time. */
import { createHash, createPrivateKey } from 'node:crypto';
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
  type Grant,
  HyphaError,
  nodeIdOf,
  type PayloadInput,
  type ScriptDraft,
  type ScriptPayload,
  type Signer,
  signAdmission,
  signAuthority,
  signEnrolment,
  signScript,
} from '../src/index.ts';
import { nodeVerifier, signerFromPem } from '../src/node/index.ts';

/** 2026-01-01T00:00:00Z. */
export const NOW = 1_767_225_600;
export const SOURCE = 'export default async () => ({ hello: "world" });\n';

/** The key whose seed is SHA-256 of the name. */
export function keyOf(name: string): Signer {
  const seed = createHash('sha256').update(name).digest();
  const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]);
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  return signerFromPem(key.export({ format: 'pem', type: 'pkcs8' }).toString());
}

/** Bytes that look random and are the same in every test run. */
export function entropyOf(name: string, nowSeconds = NOW): Entropy {
  let drawn = 0;
  return {
    nowMs: nowSeconds * 1000,
    randomBytes: (count) =>
      new Uint8Array(createHash('sha256').update(`${name} ${drawn++}`).digest().subarray(0, count)),
  };
}

export function grantOf(signer: Signer, overrides: Partial<Grant> = {}): Grant {
  return {
    publicKey: base64(signer.publicKey),
    name: 'olivia',
    role: 'operator',
    realms: ['default'],
    caps: ['volume', 'container', 'network'],
    nodes: ['*'],
    limits: null,
    notBefore: NOW - 3600,
    notAfter: NOW + 86_400,
    ...overrides,
  };
}

export interface Fleet {
  readonly root: Signer;
  readonly admin: Signer;
  readonly operator: Signer;
  readonly node: Signer;
  readonly nodeId: string;
  /** Genesis, the admin granted by the root, the operator granted by the admin. */
  readonly authority: Authority;
}

export function createFleet(operatorGrant: Partial<Grant> = {}): Fleet {
  const [root, admin, operator, node] = [
    keyOf('root'),
    keyOf('admin'),
    keyOf('operator'),
    keyOf('node'),
  ];
  const genesis = signAuthority(
    buildGenesisPayload({
      rootKeys: [{ publicKey: root.publicKey, name: 'root' }],
      threshold: 1,
      nowSeconds: NOW - 3600,
    }),
    [root],
  );
  let authority = Authority.fromGenesis(nodeVerifier, genesis);
  const adminGrant = grantOf(admin, { name: 'ada', role: 'admin', realms: ['*'], caps: ['*'] });
  authority = change(authority, { type: 'grant', grant: adminGrant }, [root]);
  const granted = grantOf(operator, operatorGrant);
  authority = change(authority, { type: 'grant', grant: granted }, [root]);
  return { root, admin, operator, node, nodeId: nodeIdOf(nodeVerifier, node.publicKey), authority };
}

export function updateOf(
  authority: Pick<Authority, 'seq' | 'head'>,
  made: AuthorityChange,
  signers: readonly Signer[],
  iat = NOW - 1800,
): Envelope {
  return signAuthority(buildAuthorityPayload(authority, made, iat), signers);
}

export function change(
  authority: Authority,
  made: AuthorityChange,
  signers: readonly Signer[],
): Authority {
  return authority.apply(updateOf(authority, made, signers));
}

/** A valid payload for the fleet's node; `payload` replaces members after it was built. */
export function payloadOf(
  fleet: Fleet,
  options: {
    readonly draft?: Partial<ScriptDraft>;
    readonly payload?: Partial<ScriptPayload>;
    readonly seed?: string;
  } = {},
): ScriptPayload {
  const draft = {
    deployment: 'web',
    generation: 1,
    nodes: [fleet.nodeId],
    authority: fleet.authority,
    source: SOURCE,
    caps: ['volume'],
    ...options.draft,
  };
  const entropy = entropyOf(options.seed ?? 'script');
  return { ...buildScriptPayload(nodeVerifier, draft, entropy), ...options.payload };
}

export function scriptOf(
  fleet: Fleet,
  options: Parameters<typeof payloadOf>[1] & { readonly signers?: readonly Signer[] } = {},
): Envelope {
  return signScript(payloadOf(fleet, options), options.signers ?? [fleet.operator]);
}

export const FACTS = {
  hostname: 'edge-1',
  os: 'Debian GNU/Linux 12',
  kernel: '6.1.0',
  arch: 'x64',
  cpus: 4,
  memoryBytes: 8 * 2 ** 30,
  storageBytes: 64 * 2 ** 30,
  hyphaVersion: '0.1.0',
  nodeVersion: '24.21.0',
  cgroups: 'v2',
  sals: { volume: { state: 'real', driver: 'btrfs' } },
} as const;

/** An admission by the fleet's admin and the enrolment that spends it. */
export function enrolmentOf(
  fleet: Fleet,
  options: {
    readonly signer?: Signer;
    readonly admittedBy?: Signer;
    readonly realms?: readonly string[];
    readonly payload?: Partial<PayloadInput<'enrol'>>;
  } = {},
): { readonly admission: Envelope; readonly enrolment: Envelope; readonly challenge: string } {
  const { payload: admitted, token } = buildAdmissionPayload(
    nodeVerifier,
    { name: 'edge-1', realms: options.realms ?? ['default'], lifetimeSeconds: 3600 },
    entropyOf('admission'),
  );
  const admission = signAdmission(admitted, options.admittedBy ?? fleet.admin);
  const challenge = base64url(entropyOf('challenge').randomBytes(16));
  const signer = options.signer ?? fleet.node;
  const enrolment = signEnrolment(
    {
      v: 1,
      publicKey: base64(signer.publicKey),
      sealKey: base64(keyOf('seal').publicKey),
      admission,
      token: base64url(token),
      challenge,
      bootId: '00000000-0000-4000-8000-000000000000',
      iat: NOW,
      facts: FACTS,
      ...options.payload,
    },
    signer,
  );
  return { admission, enrolment, challenge };
}

/** The error of a call that must throw one: code and place, for comparing. */
export function refusalOf(call: () => unknown): { code: string; path: string | undefined } {
  try {
    call();
  } catch (error) {
    if (error instanceof HyphaError) return { code: error.code, path: error.where?.path };
    throw error;
  }
  return { code: 'none', path: undefined };
}
