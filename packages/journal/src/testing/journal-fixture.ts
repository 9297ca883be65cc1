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
  hex,
  type JournalBody,
  type JournalEvent,
  nodeIdOf,
  PAYLOAD_TYPES,
  ridOf,
  runIdOf,
  ScriptPayload,
  type ScriptPayloadInput,
  signEnvelope,
  utf8,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { type Journal, openJournal } from '../journal.ts';
import type { Admission } from '../run-admission.ts';

const MIB = 1024 * 1024;
export const NOW_SECONDS = 1_800_000_000;
export const CAPACITY = { milliCpus: 4000, memoryBytes: 4096 * MIB, storageBytes: 4096 * MIB };
const nodeKey = generateKey().signer;
const operator = generateKey().signer;
export const NODE = nodeIdOf(nodeVerifier, nodeKey.publicKey);

export interface JournalFixture extends AsyncDisposable {
  journal: Journal;
  nowMs: number;
  /** As runner `r1`, or the one named, which knows every event. */
  append(
    run: string,
    bodies: readonly JournalBody[],
    as?: { runner: string; epoch: number },
  ): Promise<readonly JournalEvent[]>;
  /** Of one table, read beside the journal, which is closed for that time. */
  countRows(table: 'plan' | 'undone'): Promise<number>;
  /** As a new process would find it. */
  reopen(): Promise<void>;
}

export async function createJournalFixture(): Promise<JournalFixture> {
  const folder = await mkdtemp(join(tmpdir(), 'hypha-journal-'));
  const fixture = { nowMs: NOW_SECONDS * 1000 };
  const open = () =>
    openJournal({
      file: join(folder, 'journal.db'),
      node: NODE,
      signer: nodeKey,
      verifier: nodeVerifier,
      nowMs: () => fixture.nowMs,
      authoritySeq: () => 3,
      useOf: ({ kind }) => ({
        milliCpus: kind === 'container' ? 500 : 0,
        memoryBytes: kind === 'container' ? 128 * MIB : 0,
        storageBytes: kind === 'volume' ? 64 * MIB : 0,
      }),
    });
  const whole: JournalFixture = Object.assign(fixture, {
    journal: await open(),
    append: async (
      run: string,
      bodies: readonly JournalBody[],
      as = { runner: 'r1', epoch: 1 },
    ) => {
      const { seq: after } = await whole.journal.runs.getRun(run);
      return await whole.journal.append(run, { by: 'runner', ...as, after }, bodies);
    },
    countRows: async (table: 'plan' | 'undone') => {
      await whole.journal.close();
      const db = new DatabaseSync(join(folder, 'journal.db'), { readOnly: true });
      const rows = db.prepare(`select * from ${table}`).all();
      db.close();
      whole.journal = await open();
      return rows.length;
    },
    reopen: async () => {
      await whole.journal.close();
      whole.journal = await open();
    },
    [Symbol.asyncDispose]: async () => {
      await whole.journal.close();
      await rm(folder, { recursive: true });
    },
  });
  return whole;
}

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
