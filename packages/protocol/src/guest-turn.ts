/**
 * What engine and guest say to each other. The guest is driven in turns: it runs until it is idle,
 * hands over every call it made since, and waits for exactly one outcome. Live and replay use the same
 * turns, which is what makes a replay take the same path (design §10). Everything that comes from a
 * guest is hostile until parsed here.
 */
import { z } from 'zod';
import { Json } from './json-value.ts';

/** Place in the signed source, 1-based. */
export const GuestPlace = z.strictObject({ line: z.int(), column: z.int() });

/** One SAL call. Numbered from 1 in the order the script made them: the number is the step. */
export const GuestCall = z.strictObject({
  call: z.int().min(1),
  verb: z.string().max(64),
  /** The resource the call is on; unchecked until the engine parses it as a `Name`. */
  name: z.string().max(4096).nullable(),
  args: Json,
  /** Where the script made it, for people: no part of what a replay compares. */
  place: GuestPlace.optional(),
});
export type GuestCall = z.infer<typeof GuestCall>;

export const GuestLog = z.strictObject({ message: z.string(), fields: Json });
export type GuestLog = z.infer<typeof GuestLog>;

export const GuestFailure = z.strictObject({
  /** An `ErrorCode`: `E_SCRIPT`, `E_SCRIPT_SYNTAX`, `E_CPU`, `E_MEMORY`, `E_OUTPUT`, or that of an uncaught step error. */
  code: z.string().max(64),
  message: z.string().max(16_384),
  place: GuestPlace.nullable(),
  stack: z.string().max(16_384),
});
export type GuestFailure = z.infer<typeof GuestFailure>;

export const GuestTurn = z.strictObject({
  calls: z.array(GuestCall).max(100_000),
  logs: z.array(GuestLog).max(100_000),
  /** Present when the script ended; calls still without outcome are then awaited by the engine. */
  end: z
    .discriminatedUnion('ok', [
      /** `output`: JSON text of the returned value (`null` for undefined). */
      z.strictObject({ ok: z.literal(true), output: z.string() }),
      z.strictObject({ ok: z.literal(false), failure: GuestFailure }),
    ])
    .nullable(),
  /** Time in the guest so far, milliseconds. */
  cpuMs: z.number().nonnegative(),
});
export type GuestTurn = z.infer<typeof GuestTurn>;

/** What `now()` answers from here on, epoch milliseconds: recorded, and never less than before. */
const NowMs = z.int().nonnegative();

export const GuestOutcome = z.discriminatedUnion('ok', [
  z.strictObject({ call: z.int(), ok: z.literal(true), value: Json, nowMs: NowMs }),
  z.strictObject({
    call: z.int(),
    ok: z.literal(false),
    error: z.strictObject({ code: z.string(), message: z.string() }),
    nowMs: NowMs,
  }),
]);
export type GuestOutcome = z.infer<typeof GuestOutcome>;

/** Everything a script can see of the world at its start. */
export const GuestProgram = z.strictObject({
  source: z.string(),
  input: Json,
  /** Hex SHA-256 of (realm, deployment, generation, script digest, input): seeds randomness (design §11). */
  seed: z.string(),
  nowMs: z.int(),
  node: z.strictObject({
    id: z.string(),
    name: z.string(),
    labels: z.record(z.string(), z.string()),
  }),
  limits: z.strictObject({
    cpuMs: z.int(),
    memoryBytes: z.int(),
    outputBytes: z.int(),
    hostCalls: z.int(),
  }),
});
export type GuestProgram = z.infer<typeof GuestProgram>;

/**
 * Thrown by a guest that was lost for what another script did: their host was killed. The run goes on with a
 * fresh guest, and it does not count as one of its attempts.
 */
export class GuestDisplaced extends Error {
  constructor(cause?: unknown) {
    super('the host of the script was lost to another script', { cause });
    this.name = 'GuestDisplaced';
  }
}

/** Which guest a run asks for. */
export interface GuestRequest {
  readonly run: string;
  /** Scripts of different realms never share a host. */
  readonly realm: string;
  /** True for a run whose guest was lost in its own turn: it gets a host that nobody shares. */
  readonly alone: boolean;
}
