import { describe, expect, test } from 'vitest';
import {
  createFleet,
  entropyOf,
  keyOf,
  NOW,
  payloadOf,
  refusalOf,
  scriptOf,
} from '../test/fleet.ts';
import {
  buildAdmissionPayload,
  buildScriptPayload,
  canonicalJson,
  fromBase64,
  fromUtf8,
  hex,
  LIMITS,
  newRevisionId,
  payloadBytes,
  RevisionId,
  ScriptPayload,
  signScript,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const fleet = createFleet();

describe('a script payload', () => {
  test('is built with the defaults of the format', () => {
    const draft = {
      deployment: 'web',
      generation: 7,
      nodes: [fleet.nodeId],
      authority: fleet.authority,
      source: 'x',
    };
    const built = buildScriptPayload(nodeVerifier, draft, entropyOf('x'));
    expect(built).toMatchObject({
      v: 1,
      realm: 'default',
      mode: 'apply',
      aud: { nodes: [fleet.nodeId], count: 1 },
      iat: NOW,
      nbf: NOW,
      exp: NOW + 900,
      authority: { seq: 2, head: fleet.authority.head },
      input: {},
      caps: [],
      limits: {
        cpuMs: 2000,
        wallMs: 600_000,
        memoryBytes: 67_108_864,
        hostCalls: 10_000,
        outputBytes: 262_144,
        resources: { milliCpus: 2000, memoryBytes: 1_073_741_824, storageBytes: 10_737_418_240 },
      },
      onFailure: 'undo',
      deleteData: [],
      secrets: {},
      message: '',
    });
    expect(ScriptPayload.parse(built)).toEqual(built);
  });

  test('is the same for the same time and randomness, and another for others', () => {
    expect(payloadOf(fleet)).toEqual(payloadOf(fleet));
    const other = payloadOf(fleet, { seed: 'other' });
    expect(other.id).not.toBe(payloadOf(fleet).id);
    expect(other.nonce).not.toBe(payloadOf(fleet).nonce);
  });

  test('has no script when it destroys', () => {
    const draft = {
      deployment: 'web',
      generation: 1,
      mode: 'destroy' as const,
      nodes: [fleet.nodeId],
      authority: fleet.authority,
    };
    expect(buildScriptPayload(nodeVerifier, draft, entropyOf('x'))).not.toHaveProperty('script');
  });
});

describe('revision ids', () => {
  test('are UUIDv7: version and variant set, the time in front', () => {
    const ones = { nowMs: NOW * 1000, randomBytes: (n: number) => new Uint8Array(n).fill(0xff) };
    const zeros = { ...ones, randomBytes: (n: number) => new Uint8Array(n) };
    const time = (NOW * 1000).toString(16).padStart(12, '0');
    const prefix = `rev_${time.slice(0, 8)}-${time.slice(8)}`;
    expect(newRevisionId(ones)).toBe(`${prefix}-7fff-bfff-ffffffffffff`);
    expect(newRevisionId(zeros)).toBe(`${prefix}-7000-8000-000000000000`);
    expect(RevisionId.safeParse(newRevisionId(ones)).success).toBe(true);
  });

  test('sort by the time they were made', () => {
    const at = (seconds: number) => newRevisionId(entropyOf('x', seconds));
    expect([at(NOW + 2), at(NOW), at(NOW + 1)].sort()).toEqual([at(NOW), at(NOW + 1), at(NOW + 2)]);
  });
});

describe('signed bytes', () => {
  test('are canonical JSON with every default spelled out', () => {
    const { input: _, onFailure: __, ...short } = payloadOf(fleet);
    const bytes = payloadBytes('script', short);
    expect(fromUtf8(bytes)).toBe(canonicalJson(payloadOf(fleet)));
    expect(fromBase64(scriptOf(fleet).payload)).toEqual(bytes);
  });

  test.for([
    ['an unknown member', { extra: 1 }, 'extra'],
    ['a fraction', { input: { x: 0.5 } }, undefined],
    ['a bad name', { deployment: 'a/b' }, 'deployment'],
  ] as const)('are never made of %s', ([, changed, path]) => {
    const payload = { ...payloadOf(fleet), ...changed };
    expect(refusalOf(() => signScript(payload, [fleet.operator]))).toEqual({
      code: 'E_PAYLOAD',
      path,
    });
  });

  test('are never over 256 KiB', () => {
    const payload = payloadOf(fleet, { draft: { source: 'x'.repeat(LIMITS.payloadBytesMax) } });
    expect(refusalOf(() => signScript(payload, [keyOf('operator')])).code).toBe('E_SIZE');
  });
});

test('an admission holds the hash of the token and never the token', () => {
  const { payload, token } = buildAdmissionPayload(
    nodeVerifier,
    { name: 'edge-1', labels: { zone: 'a' }, lifetimeSeconds: 60 },
    entropyOf('admission'),
  );
  expect(token).toHaveLength(32);
  expect(payload).toEqual({
    v: 1,
    tokenHash: hex(nodeVerifier.sha256(token)),
    name: 'edge-1',
    realms: ['default'],
    labels: { zone: 'a' },
    iat: NOW,
    exp: NOW + 60,
  });
});
