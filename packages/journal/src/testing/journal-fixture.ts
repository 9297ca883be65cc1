/** A real journal in a temporary folder, and bodies to fill it with. Tests only. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import {
  type BodyOf,
  canonicalBytes,
  type DesiredResource,
  digestOf,
  fromBase64,
  hex,
  type JournalBody,
  type JournalEvent,
  nodeIdOf,
  PAYLOAD_TYPES,
  parseStrictJson,
  ReceiptPayload,
  ridOf,
  runIdOf,
  ScriptPayload,
  type ScriptPayloadInput,
  signEnvelope,
  utf8,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { openStore, type Store, type StoreOptions } from '@hypha/store';
import { afterEach, beforeEach, expect } from 'vitest';
import { type Journal, openJournal } from '../journal.ts';
import type { JournalTables } from '../journal-schema.ts';
import type { Admission } from '../run-admission.ts';

const MIB = 1024 * 1024;
export const NOW_SECONDS = 1_800_000_000;
export const CAPACITY = { milliCpus: 4000, memoryBytes: 4096 * MIB, storageBytes: 4096 * MIB };
const nodeKey = generateKey().signer;
const operator = generateKey().signer;
export const NODE = nodeIdOf(nodeVerifier, nodeKey.publicKey);

/** The runner that begins every run. */
export const OWNER = { runner: 'r1', epoch: 1, bootId: 'boot-1' };

/** A write that was asked for and has not reached the store. */
export interface HeldWrite {
  /** Resolves once somebody asks for it. */
  readonly asked: Promise<void>;
  letGo(): void;
  /** It never reaches the store. */
  fail(error: Error): void;
}

export class JournalFixture implements AsyncDisposable {
  nowMs = NOW_SECONDS * 1000;
  #folder: string | undefined;
  #journal: Journal | undefined;
  #held: { asked: () => void; turn: Promise<void> } | undefined;

  get journal(): Journal {
    if (this.#journal === undefined) throw new Error('the journal is not open');
    return this.#journal;
  }

  /** An empty journal in a new folder. */
  async create(): Promise<void> {
    this.nowMs = NOW_SECONDS * 1000;
    this.#folder = await mkdtemp(join(tmpdir(), 'hypha-journal-'));
    this.#journal = await this.#open();
  }

  /** As a new process would find it. */
  async reopen(): Promise<void> {
    await this.journal.close();
    this.#journal = await this.#open();
  }

  /** The next write waits until it is told what becomes of it. */
  holdNextWrite(): HeldWrite {
    const asked = Promise.withResolvers<void>();
    const turn = Promise.withResolvers<void>();
    // It may be told so before it is asked for.
    turn.promise.catch(() => undefined);
    this.#held = { asked: asked.resolve, turn: turn.promise };
    return { asked: asked.promise, letGo: turn.resolve, fail: turn.reject };
  }

  /** A run that `OWNER` has claimed and started; `bodies` are in the same append as its start. */
  async start(
    change: Partial<ScriptPayloadInput> = {},
    ...bodies: readonly JournalBody[]
  ): Promise<Admission> {
    const admission = admissionOf(change);
    await this.journal.admit(admission);
    await this.journal.claim(admission.run, OWNER);
    await this.append(admission.run, [started(), ...bodies]);
    return admission;
  }

  /** As runner `r1`, or the one named, which knows every event. */
  async append(
    run: string,
    bodies: readonly JournalBody[],
    as = { runner: 'r1', epoch: 1 },
  ): Promise<readonly JournalEvent[]> {
    const { seq: after } = await this.journal.runs.getRun(run);
    return await this.journal.append(run, { by: 'runner', ...as, after }, bodies);
  }

  /** A step for each, with its outcome, in an append of its own. */
  async make(run: string, desired: readonly DesiredResource[]): Promise<void> {
    for (const [index, resource] of desired.entries()) {
      await this.append(run, [intent(index + 1, resource), result(index + 1)]);
    }
  }

  /** What the supervisor says of a committed run whose removals are done. */
  async succeed(run: string): Promise<JournalEvent | undefined> {
    const [event] = await this.journal.append(run, { by: 'supervisor' }, [finished('succeeded')]);
    return event;
  }

  /** A run from its admission to its success. Answers its id. */
  async apply(
    change: Partial<ScriptPayloadInput>,
    ...desired: readonly DesiredResource[]
  ): Promise<string> {
    const { run } = await this.start(change);
    await this.make(run, desired);
    await this.append(run, [committed(...desired)]);
    await this.succeed(run);
    return run;
  }

  async stateOf(run: string): Promise<string> {
    return (await this.journal.runs.getRun(run)).state;
  }

  async receiptOf(run: string): Promise<ReceiptPayload> {
    const envelope = await this.journal.runs.findReceipt(run);
    if (envelope === undefined) throw new Error(`${run} has no receipt`);
    return ReceiptPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
  }

  /** Of each resource, by name. */
  statuses(): Record<string, string> {
    const { records, provisional } = this.journal.records.readWorld();
    return Object.fromEntries([
      ...records.map(({ name, status }) => [name, status]),
      ...provisional.map(({ name }) => [name, 'provisional']),
    ]);
  }

  /** Of one table, read beside the journal, which is closed for that time. */
  async countRows(table: 'plan' | 'undone'): Promise<number> {
    await this.journal.close();
    const db = new DatabaseSync(this.#file, { readOnly: true });
    const rows = db.prepare(`select * from ${table}`).all();
    db.close();
    this.#journal = await this.#open();
    return rows.length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#journal?.close();
    this.#journal = undefined;
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true });
  }

  get #file(): string {
    return join(this.#folder ?? '', 'journal.db');
  }

  async #open(): Promise<Journal> {
    return await openJournal({
      file: this.#file,
      openStore: (options) => this.#openStore(options),
      node: NODE,
      signer: nodeKey,
      verifier: nodeVerifier,
      nowMs: () => this.nowMs,
      authoritySeq: () => 3,
      useOf: ({ kind }) => ({
        milliCpus: kind === 'container' ? 500 : 0,
        memoryBytes: kind === 'container' ? 128 * MIB : 0,
        storageBytes: kind === 'volume' ? 64 * MIB : 0,
      }),
    });
  }

  async #openStore(options: StoreOptions): Promise<Store<JournalTables>> {
    const store = await openStore<JournalTables>(options);
    const close = () => store.close();
    return {
      db: store.db,
      counts: () => store.counts(),
      close,
      [Symbol.asyncDispose]: close,
      write: async (writes) => {
        const held = this.#held;
        this.#held = undefined;
        held?.asked();
        await held?.turn;
        return await store.write(writes);
      },
    };
  }
}

/** A journal that is new for each test of the file that asks for it. */
export function journalOfEachTest(): JournalFixture {
  const fixture = new JournalFixture();
  beforeEach(() => fixture.create());
  afterEach(() => fixture[Symbol.asyncDispose]());
  return fixture;
}

/** An error of this code, whatever else it says. */
export const refusal = (code: string) => expect.objectContaining({ code });

let counter = 0;

export function admissionOf(change: Partial<ScriptPayloadInput> = {}): Admission {
  counter++;
  const source = 'export default () => 1;';
  const payload = ScriptPayload.parse({
    v: 1,
    id: `rev_00000000-0000-7000-8000-${String(counter).padStart(12, '0')}`,
    realm: 'default',
    deployment: 'web',
    generation: counter,
    mode: 'apply',
    aud: { nodes: [NODE], count: 1 },
    iat: NOW_SECONDS,
    nbf: NOW_SECONDS,
    exp: NOW_SECONDS + 900,
    nonce: String(counter).padStart(22, 'n'),
    authority: { seq: 0, head: '0'.repeat(64) },
    ...(change.mode === 'destroy'
      ? {}
      : {
          script: {
            engine: 'quickjs-es2023',
            sha256: hex(nodeVerifier.sha256(utf8(source))),
            source,
          },
        }),
    caps: [],
    limits: {
      resources: { milliCpus: 1000, memoryBytes: 512 * MIB, storageBytes: 512 * MIB },
    },
    ...change,
  });
  const bytes = canonicalBytes(payload);
  const digest = digestOf(nodeVerifier, PAYLOAD_TYPES.script, bytes);
  return {
    run: runIdOf(nodeVerifier, digest, NODE),
    digest,
    envelope: signEnvelope('script', bytes, [operator]),
    payload,
    keyids: [operator.keyid],
    authoritySeq: 0,
    source: 'http',
    capacity: CAPACITY,
  };
}

export function acceptedOf({ payload, digest, keyids }: Admission): BodyOf<'accepted'> {
  const { realm, deployment, generation, mode } = payload;
  const what = { realm, deployment, generation, mode };
  const type = 'accepted';
  return {
    type,
    ...what,
    envelopeDigest: digest,
    node: NODE,
    keyids: [...keyids],
    authoritySeq: 0,
  };
}

export function desiredOf(kind: string, name: string, size = 1): DesiredResource {
  const identity = { realm: 'default', deployment: 'web', kind, name };
  const spec = { size };
  const specHash = hex(nodeVerifier.sha256(canonicalBytes(spec)));
  return { rid: ridOf(nodeVerifier, identity), kind, name, spec, specHash };
}

export function started(bootId = 'boot-1'): BodyOf<'started'> {
  return { type: 'started', runner: 'r1', bootId, abi: '1', nowMs: NOW_SECONDS * 1000 };
}

export function intent(
  step: number,
  desired: DesiredResource | null,
  action = 'create',
): BodyOf<'step-intent'> {
  return {
    type: 'step-intent',
    step,
    verb: desired === null ? 'sys.read' : `${desired.kind}.ensure`,
    class: desired === null ? 'read' : 'ensure',
    args: {},
    rid: desired?.rid ?? null,
    kind: desired?.kind ?? null,
    name: desired?.name ?? null,
    action,
    before: null,
    desired,
  };
}

export function result(step: number): BodyOf<'step-result'> {
  return { type: 'step-result', step, result: { ok: true }, durationMs: 1 };
}

export function committed(...desired: DesiredResource[]): BodyOf<'committed'> {
  const sha256 = hex(nodeVerifier.sha256(utf8('1')));
  return { type: 'committed', output: '1', outputSha256: sha256, desired };
}

export function finished(state: BodyOf<'finished'>['state'], code?: string): BodyOf<'finished'> {
  const problem =
    code === undefined
      ? null
      : { type: 'about:blank', title: '', status: 500, detail: '', code, hint: '' };
  return { type: 'finished', state, problem, undone: 0, leftovers: [] };
}
