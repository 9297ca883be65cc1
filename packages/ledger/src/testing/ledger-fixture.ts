/** A fleet's keys and what they sign, for tests of the ledger. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LedgerClient } from '@hypha/client';
import {
  Authority,
  type AuthorityChange,
  base64,
  base64url,
  buildAdmissionPayload,
  buildAuthorityPayload,
  buildGenesisPayload,
  buildNodeAdmissionPayload,
  type Envelope,
  envelopeDigest as envelopeDigestOf,
  GENESIS_HASH,
  type Labels,
  type NodeFacts,
  type NodeId,
  type NodeView,
  nodeIdOf,
  runIdOf,
  type Signer,
  signAdmission,
  signAuthority,
  signEnrolment,
  signReceipt,
  signReport,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { createLogger } from '@hypha/service';
import { type Ledger, startLedger } from '../ledger.ts';

export const FACTS: NodeFacts = {
  hostname: 'edge-1',
  os: 'Debian 12',
  kernel: '6.1.0',
  arch: 'x64',
  cpus: 4,
  memoryBytes: 8 * 1024 ** 3,
  storageBytes: 100 * 1024 ** 3,
  hyphaVersion: '0.1.0',
  nodeVersion: '24.0.0',
  cgroups: 'v2',
  sals: {},
};

const YEAR_SECONDS = 365 * 86_400;

/** Keys of one fleet and its authority as far as these tests have built it. */
export class Fleet {
  readonly root = generateKey().signer;
  readonly admin = generateKey().signer;
  readonly nowMs: () => number;
  readonly genesis: Envelope;
  authority: Authority;

  constructor(nowMs: () => number = Date.now) {
    this.nowMs = nowMs;
    const payload = buildGenesisPayload({
      rootKeys: [{ publicKey: this.root.publicKey, name: 'root' }],
      threshold: 1,
      nowSeconds: this.nowSeconds,
    });
    this.genesis = signAuthority(payload, [this.root]);
    this.authority = Authority.fromGenesis(nodeVerifier, this.genesis);
  }

  get nowSeconds(): number {
    return Math.floor(this.nowMs() / 1000);
  }

  /** An update that follows what the fleet knows; `this.authority` stays as it is. */
  update(change: AuthorityChange, signer: Signer = this.root): Envelope {
    return signAuthority(buildAuthorityPayload(this.authority, change, this.nowSeconds), [signer]);
  }

  grant(key: Signer, role: 'admin' | 'operator', name = role): AuthorityChange {
    return {
      type: 'grant',
      grant: {
        publicKey: base64(key.publicKey),
        name,
        role,
        realms: ['*'],
        caps: ['*'],
        nodes: ['*'],
        limits: null,
        notBefore: 0,
        // An admin may not grant beyond its own end, and a second may pass between the two grants.
        notAfter: this.nowSeconds + YEAR_SECONDS + (role === 'admin' ? 3600 : 0),
      },
    };
  }

  /** Appends at the ledger and follows. */
  async append(ledger: LedgerClient, change: AuthorityChange, signer?: Signer): Promise<Envelope> {
    const envelope = this.update(change, signer);
    await ledger.appendAuthority(envelope);
    this.authority = this.authority.apply(envelope);
    return envelope;
  }

  admission(options: AdmissionOptions = {}): {
    readonly envelope: Envelope;
    readonly token: string;
  } {
    const { signer = this.admin, ...place } = options;
    const { payload, token } = buildAdmissionPayload(
      nodeVerifier,
      { ...PLACE, ...place },
      { nowMs: this.nowMs(), randomBytes: (count) => new Uint8Array(randomBytes(count)) },
    );
    return { envelope: signAdmission(payload, signer), token: base64url(token) };
  }

  /** An admission of the one node with this id. */
  admissionOf(node: NodeId, { signer = this.admin, ...place }: AdmissionOptions = {}): Envelope {
    const draft = { ...PLACE, ...place };
    return signAdmission(buildNodeAdmissionPayload(node, draft, this.nowMs()), signer);
  }
}

const PLACE = { name: 'edge-1', lifetimeSeconds: 600 } as const;

export interface AdmissionOptions {
  readonly name?: string;
  readonly labels?: Labels;
  readonly realms?: readonly string[];
  readonly replaces?: NodeId;
  readonly lifetimeSeconds?: number;
  /** Default: the admin. */
  readonly signer?: Signer;
}

/** A node's key and what it signs. */
export class Machine {
  readonly signer = generateKey().signer;
  readonly id = nodeIdOf(nodeVerifier, this.signer.publicKey);
  readonly #receiptDigests = new Map<number, string>();

  enrolment(
    admission: { readonly envelope: Envelope; readonly token: string },
    challenge: string,
    nowSeconds: number,
  ): Envelope {
    return signEnrolment(
      {
        v: 1,
        publicKey: base64(this.signer.publicKey),
        sealKey: base64(new Uint8Array(32).fill(9)),
        admission: admission.envelope,
        token: admission.token,
        challenge,
        bootId: 'boot-1',
        iat: nowSeconds,
        facts: FACTS,
      },
      this.signer,
    );
  }

  report(seq: number, at: number, changes: { bootId?: string; milliCpus?: number } = {}): Envelope {
    const { bootId = 'boot-1', milliCpus = 3000 } = changes;
    return signReport(
      {
        v: 1,
        node: this.id,
        seq,
        bootId,
        uptimeMs: seq * 1000,
        at,
        facts: FACTS,
        reserved: { milliCpus: 1000, memoryBytes: 0, storageBytes: 0 },
        free: { milliCpus, memoryBytes: 1, storageBytes: 2 },
        runsActive: 0,
        authoritySeq: 0,
      },
      this.signer,
    );
  }

  /** Its receipts follow those of a machine that had another key. */
  continueAfter(before: Machine): void {
    for (const [seq, digest] of before.#receiptDigests) this.#receiptDigests.set(seq, digest);
  }

  /** Follows the one before it, if that was made here. */
  receipt(
    seq: number,
    envelopeDigest: string,
  ): { readonly run: string; readonly envelope: Envelope } {
    const run = runIdOf(nodeVerifier, envelopeDigest, this.id);
    const envelope = signReceipt(
      {
        v: 1,
        run,
        envelopeDigest,
        node: this.id,
        realm: 'default',
        deployment: 'web',
        generation: seq,
        mode: 'apply',
        state: 'succeeded',
        startedAt: 1,
        endedAt: 2,
        steps: 0,
        journalHead: GENESIS_HASH,
        undone: 0,
        leftovers: [],
        prev: this.#receiptDigests.get(seq - 1) ?? null,
        seq,
        authoritySeq: 0,
      },
      this.signer,
    );
    this.#receiptDigests.set(seq, envelopeDigestOf(nodeVerifier, envelope, 'receipt'));
    return { run, envelope };
  }
}

/** A temporary folder that goes with the test. */
export async function temporaryState(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'hypha-ledger-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** A ledger inside the test's process, its authority with an admin, and clients of it. */
export interface TestLedger extends AsyncDisposable {
  readonly fleet: Fleet;
  readonly ledger: Ledger;
  readonly client: LedgerClient;
  /** Moves the ledger's and the fleet's clock. */
  advance(ms: number): void;
  clientOf(by: { readonly signer: Signer }): LedgerClient;
  enrol(machine: Machine, options?: { name?: string; labels?: Labels }): Promise<NodeView>;
}

export async function startTestLedger(): Promise<TestLedger> {
  const state = await temporaryState();
  let offsetMs = 0;
  const nowMs = () => Date.now() + offsetMs;
  const fleet = new Fleet(nowMs);
  const ledger = await startLedger({
    state: state.path,
    host: '127.0.0.1',
    port: 0,
    genesis: fleet.genesis,
    reportIntervalMs: 1000,
    log: createLogger({ name: 'test', level: 'silent' }),
    clock: { nowMs },
  });
  const clients: LedgerClient[] = [];
  const clientOf = (by: { readonly signer: Signer }) => {
    const client = new LedgerClient({
      baseUrl: ledger.url,
      signer: by.signer,
      clock: {
        nowMs,
        nonce: () => randomBytes(16).toString('base64url'),
        jitterMs: () => 0,
      },
    });
    clients.push(client);
    return client;
  };
  const client = clientOf({ signer: fleet.admin });
  await fleet.append(client, fleet.grant(fleet.admin, 'admin'));
  return {
    fleet,
    ledger,
    client,
    clientOf,
    advance: (ms) => {
      offsetMs += ms;
    },
    enrol: async (machine, options = {}) => {
      const admission = fleet.admission(options);
      await client.appendEntry(admission.envelope);
      const { challenge } = await client.challenge();
      return await client.enrol(machine.enrolment(admission, challenge, fleet.nowSeconds));
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(clients.map(({ http }) => http.close()));
      await ledger.close();
      await state[Symbol.asyncDispose]();
    },
  };
}

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url));

/** The real process, ready. */
export interface LedgerProcess extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly client: LedgerClient;
  /** Resolves when the process is gone. */
  kill(signal: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

export async function spawnLedger(state: string, genesis: Envelope): Promise<LedgerProcess> {
  const file = join(state, 'genesis.json');
  await writeFile(file, JSON.stringify(genesis));
  const child = spawn(
    process.execPath,
    [MAIN, '--state', join(state, 'ledger'), '--port', '0', '--genesis', file],
    { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], env: { HYPHA_LEDGER_LOG_LEVEL: 'error' } },
  );
  const exited = once(child, 'exit');
  const [message] = await Promise.race([
    once(child, 'message'),
    exited.then(([code]) => {
      throw new Error(`the ledger exited with ${code}`);
    }),
  ]);
  const { url } = (message as { ready: { url: string } }).ready;
  const client = new LedgerClient({ baseUrl: url });
  const kill: LedgerProcess['kill'] = async (signal) => {
    child.kill(signal);
    const [code, by] = await exited;
    return { code, signal: by };
  };
  return {
    child,
    client,
    kill,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null && child.signalCode === null) await kill('SIGKILL');
      await client.http.close();
    },
  };
}
