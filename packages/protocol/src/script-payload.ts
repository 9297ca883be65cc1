import { z } from 'zod';
import { canonicalJson } from './canonical-json.ts';
import { isLongerThan } from './encoding.ts';
import { Name, NodeId, Nonce, RevisionId, Sha256Hex } from './ids.ts';
import { Json } from './json-value.ts';
import { LIMITS } from './limits.ts';

const Seconds = z.int().nonnegative();
const KIB = 1024;
const MIB = 1024 * KIB;

/** What a deployment may hold on one node. The ceiling that is placed and reserved at admission. */
export const ResourceLimits = z.strictObject({
  milliCpus: z.int().nonnegative().max(10_000_000).default(2000),
  memoryBytes: z
    .int()
    .nonnegative()
    .default(1024 * MIB),
  storageBytes: z
    .int()
    .nonnegative()
    .default(10 * 1024 * MIB),
});
export type ResourceLimits = z.infer<typeof ResourceLimits>;

/** What one run may use. Defaults are those of design §8. */
export const RunLimits = z.strictObject({
  /** Time inside the guest, milliseconds. */
  cpuMs: z.int().min(1).max(600_000).default(2000),
  /** Time from start to end of the run, milliseconds. */
  wallMs: z
    .int()
    .min(100)
    .max(7 * 86_400_000)
    .default(600_000),
  /** Linear memory of the guest. */
  memoryBytes: z
    .int()
    .min(4 * MIB)
    .max(1024 * MIB)
    .default(64 * MIB),
  hostCalls: z.int().min(0).max(1_000_000).default(10_000),
  /** Returned value plus log lines, bytes of JSON. */
  outputBytes: z
    .int()
    .min(0)
    .max(16 * MIB)
    .default(256 * KIB),
  resources: ResourceLimits.default(ResourceLimits.parse({})),
});
export type RunLimits = z.infer<typeof RunLimits>;

export const Capability = z.string().regex(/^[a-z][a-z0-9-]{0,31}$/);

export const ScriptMode = z.enum(['apply', 'plan', 'task', 'destroy']);
export type ScriptMode = z.infer<typeof ScriptMode>;

/** What an operator signs. Strict: an unknown key is refused. Source: design §8. */
export const ScriptPayload = z
  .strictObject({
    v: z.literal(1),
    id: RevisionId,
    realm: Name,
    deployment: Name,
    generation: z.int().min(1),
    mode: ScriptMode,
    aud: z.strictObject({
      nodes: z.array(NodeId).min(1).max(LIMITS.audienceNodesMax),
      count: z.int().min(1).max(LIMITS.audienceNodesMax),
    }),
    iat: Seconds,
    nbf: Seconds,
    exp: Seconds,
    nonce: Nonce,
    authority: z.strictObject({ seq: z.int().nonnegative(), head: Sha256Hex }),
    script: z
      .strictObject({
        engine: z.literal('quickjs-es2023'),
        sha256: Sha256Hex,
        source: z.string().min(1),
      })
      .optional(),
    input: z.record(z.string(), Json).default({}),
    caps: z.array(Capability).max(LIMITS.capsMax),
    limits: RunLimits,
    onFailure: z.enum(['undo', 'keep']).default('undo'),
    deleteData: z.array(Name).max(LIMITS.deleteDataMax).default([]),
    secrets: z.record(NodeId, z.string()).default({}),
    expect: z.record(NodeId, Sha256Hex).optional(),
    message: z.string().default(''),
  })
  .superRefine((payload, context) => {
    const refuse = (path: string[], message: string) =>
      context.addIssue({ code: 'custom', path, message });
    const { aud, mode, script } = payload;
    if (new Set(aud.nodes).size !== aud.nodes.length)
      refuse(['aud', 'nodes'], 'names a node twice');
    if (aud.count > aud.nodes.length) refuse(['aud', 'count'], 'is more than the candidates');
    if (mode === 'destroy' && script !== undefined) refuse(['script'], 'is absent in a destroy');
    if (mode !== 'destroy' && script === undefined) refuse(['script'], 'is required');
    if (payload.nbf > payload.exp) refuse(['nbf'], 'is after exp');
    if (isLongerThan(canonicalJson(payload.input), LIMITS.inputBytesMax))
      refuse(['input'], 'is over 16 KiB');
    if (isLongerThan(payload.message, LIMITS.messageBytesMax))
      refuse(['message'], 'is over 256 bytes');
  });
export type ScriptPayload = z.infer<typeof ScriptPayload>;
/** What a signer writes: members with a default may be left out. */
export type ScriptPayloadInput = z.input<typeof ScriptPayload>;
