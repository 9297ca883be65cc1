import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinatorClient, LedgerClient } from '@hypha/client';
import {
  Authority,
  type AuthorityChange,
  base64,
  base64url,
  buildAdmissionPayload,
  buildAuthorityPayload,
  buildCancelPayload,
  buildGenesisPayload,
  buildScriptPayload,
  type Entropy,
  type Envelope,
  envelopeDigest,
  type Grant,
  isHyphaError,
  type NodeView,
  type ResourceLimits,
  type Role,
  type ScriptDraft,
  type ScriptPayload,
  type Signer,
  signAdmission,
  signAuthority,
  signCancel,
  signEnrolment,
  signReport,
  signScript,
} from '@hypha/protocol';
import { generateKey, nodeVerifier, writeKeyFile } from '@hypha/protocol/node';
import { vi } from 'vitest';
import { FakeNode } from './fake-node.ts';
import { type ServiceProcess, startService } from './service-process.ts';

const LEDGER = new URL('../../../ledger/src/main.ts', import.meta.url);
const COORDINATOR = new URL('../main.ts', import.meta.url);
const DAY_SECONDS = 86_400;
const GIB = 1024 ** 3;

const FACTS: NodeView['facts'] = {
  hostname: 'fake',
  os: 'fake',
  kernel: 'fake',
  arch: 'x64',
  cpus: 512,
  memoryBytes: 1024 * GIB,
  storageBytes: 4096 * GIB,
  hyphaVersion: '0.1.0',
  nodeVersion: '24',
  cgroups: 'v2',
  sals: {},
};

export const SOURCE = 'export default async function deploy() { return 1; }';

function entropy(): Entropy {
  return { nowMs: Date.now(), randomBytes: (count) => new Uint8Array(randomBytes(count)) };
}

const nowSeconds = () => Math.floor(Date.now() / 1000);

/** A real ledger and a real coordinator, with root, admin and operator keys. Nodes are fakes. */
export class TestFleet {
  readonly root = generateKey().signer;
  readonly admin = generateKey().signer;
  readonly operator = generateKey().signer;
  readonly #coordinatorKey = generateKey();
  readonly #folder: string;
  readonly #coordinatorFlags: Record<string, string | number>;
  readonly #nodes: FakeNode[] = [];
  #authority: Authority;
  #ledgerProcess: ServiceProcess | undefined;
  #coordinatorProcess: ServiceProcess | undefined;

  private constructor(folder: string, coordinatorFlags: Record<string, string | number>) {
    this.#folder = folder;
    this.#coordinatorFlags = coordinatorFlags;
    const genesis = buildGenesisPayload({
      rootKeys: [{ publicKey: this.root.publicKey, name: 'root' }],
      threshold: 1,
      nowSeconds: nowSeconds(),
    });
    this.#authority = Authority.fromGenesis(nodeVerifier, signAuthority(genesis, [this.root]));
  }

  static async start(coordinatorFlags: Record<string, string | number> = {}): Promise<TestFleet> {
    const folder = await mkdtemp(join(tmpdir(), 'hypha-coordinator-'));
    const fleet = new TestFleet(folder, coordinatorFlags);
    try {
      await writeFile(join(folder, 'genesis.json'), JSON.stringify(fleet.authority.updates[0]));
      await fleet.startLedger();
      const { publicKey } = await fleet.ledger.logKey();
      await fleet.change({ type: 'set-ledger-key', publicKey });
      await fleet.grant(fleet.admin, 'admin');
      await fleet.grant(fleet.operator, 'operator');
      writeKeyFile(fleet.#coordinatorKeyFile, fleet.#coordinatorKey.pem);
      await fleet.grant(fleet.#coordinatorKey.signer, 'coordinator');
      await fleet.startCoordinator();
      await fleet.#untilFresh();
    } catch (error) {
      await fleet.stop();
      throw error;
    }
    return fleet;
  }

  /** Before it has read the ledger, which on a busy machine takes a while, a coordinator accepts nothing. */
  async #untilFresh(): Promise<void> {
    const { envelope } = this.script({ deployment: 'probe', nodes: [`node_${'a'.repeat(32)}`] });
    await vi.waitFor(
      async () => {
        const refusal: unknown = await this.coordinator.submit({ envelope }).catch((err) => err);
        if (!isHyphaError(refusal, 'E_NO_PLACEMENT')) throw refusal;
      },
      { timeout: 30_000 },
    );
  }

  get authority(): Authority {
    return this.#authority;
  }

  get ledgerProcess(): ServiceProcess {
    if (this.#ledgerProcess === undefined) throw new Error('the ledger does not run');
    return this.#ledgerProcess;
  }

  get coordinatorProcess(): ServiceProcess {
    if (this.#coordinatorProcess === undefined) throw new Error('the coordinator does not run');
    return this.#coordinatorProcess;
  }

  get ledger(): LedgerClient {
    return new LedgerClient({ baseUrl: this.ledgerProcess.url, signer: this.operator });
  }

  get coordinator(): CoordinatorClient {
    return this.coordinatorAs(this.operator);
  }

  coordinatorAs(signer: Signer): CoordinatorClient {
    return new CoordinatorClient({ baseUrl: this.coordinatorProcess.url, signer });
  }

  get #coordinatorKeyFile(): string {
    return join(this.#folder, 'coordinator.pem');
  }

  /** Again: on the address and the state it had. */
  async startLedger(): Promise<void> {
    this.#ledgerProcess = await startService(LEDGER, {
      state: join(this.#folder, 'ledger'),
      genesis: join(this.#folder, 'genesis.json'),
      port: portOf(this.#ledgerProcess),
      'log-level': 'warn',
    });
  }

  /** Again: on the address and the state it had. */
  async startCoordinator(): Promise<void> {
    this.#coordinatorProcess = await startService(COORDINATOR, {
      state: join(this.#folder, 'coordinator'),
      ledger: this.ledgerProcess.url,
      genesis: this.#authority.genesisHash,
      key: this.#coordinatorKeyFile,
      port: portOf(this.#coordinatorProcess),
      'ledger-poll-ms': 200,
      ...this.#coordinatorFlags,
    });
  }

  async stop(): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.close()));
    this.#ledgerProcess?.child.kill('SIGCONT');
    await this.#coordinatorProcess?.kill('SIGKILL');
    await this.#ledgerProcess?.kill('SIGKILL');
    await rm(this.#folder, { recursive: true, force: true });
  }

  grant(key: Signer, role: Role, scope: Partial<Grant> = {}): Promise<Envelope> {
    const now = nowSeconds();
    const grant: Grant = {
      publicKey: base64(key.publicKey),
      name: role,
      role,
      realms: ['*'],
      caps: ['*'],
      nodes: ['*'],
      limits: null,
      notBefore: now - 60,
      notAfter: now + DAY_SECONDS,
      ...scope,
    };
    return this.change({ type: 'grant', grant });
  }

  /** A root-signed authority update, at the ledger. */
  async change(change: AuthorityChange): Promise<Envelope> {
    const envelope = this.signChange(change);
    await this.ledger.appendAuthority(envelope);
    return envelope;
  }

  /** A root-signed authority update that nobody has yet. */
  signChange(change: AuthorityChange): Envelope {
    const payload = buildAuthorityPayload(this.#authority, change, nowSeconds());
    const envelope = signAuthority(payload, [this.root]);
    this.#authority = this.#authority.apply(envelope);
    return envelope;
  }

  /** An enrolled node whose inbox is not open yet. */
  async addNode(
    name: string,
    options: {
      labels?: Record<string, string>;
      realms?: string[];
      free?: ResourceLimits;
      /** Whose name it takes. */
      replaces?: FakeNode;
    } = {},
  ): Promise<FakeNode> {
    const { labels = {}, realms = ['*'], free, replaces } = options;
    const { payload: admission, token } = buildAdmissionPayload(
      nodeVerifier,
      { name, realms, labels, lifetimeSeconds: 600, replaces: replaces?.id },
      entropy(),
    );
    const signed = signAdmission(admission, this.admin);
    await this.ledger.appendEntry(signed);
    const { signer } = generateKey();
    const view = await this.#enrol(signer, { admission: signed, token: base64url(token) });
    const node = new FakeNode({ view, signer, url: () => this.coordinatorProcess.url });
    this.#nodes.push(node);
    await this.report(node, free ?? view.free);
    return node;
  }

  /** A statement without an admission: the ledger keeps it for an admin. */
  requestToJoin(signer: Signer): Promise<NodeView> {
    return this.#enrol(signer, {});
  }

  async #enrol(
    signer: Signer,
    permission: { admission?: Envelope; token?: string },
  ): Promise<NodeView> {
    const { challenge } = await this.ledger.challenge();
    const statement = signEnrolment(
      {
        v: 1,
        publicKey: base64(signer.publicKey),
        sealKey: base64(new Uint8Array(randomBytes(32))),
        ...permission,
        challenge,
        bootId: 'boot-1',
        iat: nowSeconds(),
        facts: FACTS,
      },
      signer,
    );
    return await this.ledger.enrol(statement);
  }

  /** A sign of life at the ledger, as a node's identity sends it. */
  async report(node: FakeNode, free: ResourceLimits): Promise<void> {
    const report = signReport(
      {
        v: 1,
        node: node.id,
        seq: Date.now(),
        bootId: 'boot-1',
        uptimeMs: 1,
        at: Date.now(),
        facts: FACTS,
        reserved: { milliCpus: 0, memoryBytes: 0, storageBytes: 0 },
        free,
        runsActive: 0,
        authoritySeq: this.#authority.seq,
      },
      node.signer,
    );
    const client = new LedgerClient({ baseUrl: this.ledgerProcess.url, signer: node.signer });
    await client.report(node.id, [report]);
  }

  /** A script as an operator signs it. */
  script(draft: Partial<ScriptDraft> & Pick<ScriptDraft, 'deployment' | 'nodes'>, key?: Signer) {
    const payload = buildScriptPayload(
      nodeVerifier,
      {
        generation: 1,
        ...(draft.mode === 'destroy' ? {} : { source: SOURCE }),
        authority: this.#authority,
        lifetimeSeconds: 900,
        ...draft,
      },
      entropy(),
    );
    return { payload, envelope: signScript(payload, [key ?? this.operator]) };
  }

  /** Submits a script as an operator signs it. `run` is the first of its runs. */
  async submit(draft: Parameters<TestFleet['script']>[0]) {
    const script = this.script(draft);
    const { runs } = await this.coordinator.submit({ envelope: script.envelope });
    const [first] = runs;
    if (first === undefined) throw new Error('no run');
    return { script, runs, run: first.run };
  }

  /** A cancel of that script on the nodes it names. */
  cancel(
    script: { readonly payload: ScriptPayload; readonly envelope: Envelope },
    options: {
      readonly nodes?: readonly string[];
      readonly realm?: string;
      readonly lifetimeSeconds?: number;
      readonly key?: Signer;
    } = {},
  ): { readonly digest: string; readonly envelope: Envelope } {
    const { key = this.operator, lifetimeSeconds = 900 } = options;
    const payload = buildCancelPayload(
      {
        realm: options.realm ?? script.payload.realm,
        nodes: options.nodes ?? script.payload.aud.nodes,
        target: envelopeDigest(nodeVerifier, script.envelope, 'script'),
        authority: this.#authority,
        lifetimeSeconds,
      },
      entropy(),
    );
    const envelope = signCancel(payload, [key]);
    return { envelope, digest: envelopeDigest(nodeVerifier, envelope, 'cancel') };
  }
}

function portOf(process: ServiceProcess | undefined): number {
  return process === undefined ? 0 : Number(new URL(process.url).port);
}
