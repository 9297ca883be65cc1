/**
 * What a runner and its supervisor say over the journal's unix socket: one JSON value a line, requests
 * answered by id. The supervisor is the journal's only writer; end of file on this socket is how a dead
 * runner is seen at once (design §7).
 */
import {
  DesiredResource,
  Envelope,
  type ErrorCode,
  JournalBody,
  JournalEvent,
  Name,
  PlanDocument,
  Problem,
  RunId,
} from '@hypha/protocol';
import { z } from 'zod';

/** Runs one runner process may own at once. */
export const HELD_RUNS_MAX = 64;

export const RunnerRequest = z.discriminatedUnion('method', [
  /** First on every connection. `holding`: the epochs a reconnecting runner still owns. */
  z.strictObject({
    method: z.literal('hello'),
    runner: z.string().max(64),
    /** Given to the runner at its start; proves it was started by this supervisor. */
    token: z.string().max(128),
    pid: z.int(),
    holding: z.array(z.strictObject({ run: RunId, epoch: z.int() })).max(HELD_RUNS_MAX),
  }),
  /** Takes the epoch named by a queue job. Refused with `E_STALE_EPOCH` when it is not the run's newest. */
  z.strictObject({ method: z.literal('claim'), run: RunId, epoch: z.int() }),
  z.strictObject({
    method: z.literal('append'),
    run: RunId,
    epoch: z.int(),
    /**
     * Events the runner knows of. An append whose answer was lost is sent again: the supervisor sees by
     * this that it has those events, and does not append them twice.
     */
    after: z.int().min(1),
    bodies: z.array(JournalBody).min(1).max(1000),
  }),
  /** Wants files with the values of secrets, of any version that the run's deployment has here. */
  z.strictObject({
    method: z.literal('secrets'),
    run: RunId,
    epoch: z.int(),
    secrets: z
      .array(z.strictObject({ secret: Name, version: z.string().max(64) }))
      .min(1)
      .max(2000),
  }),
  /**
   * Lets go of a run that only waits. The supervisor ends the epoch and queues the run again at `wakeAtMs`
   * (epoch milliseconds), sooner when it is cancelled. The runner touches nothing of it afterwards.
   */
  z.strictObject({
    method: z.literal('park'),
    run: RunId,
    epoch: z.int(),
    after: z.int().min(1),
    wakeAtMs: z.int().nonnegative(),
  }),
  /** Wants the journal of a failed run of the same deployment that was signed to be kept: to undo it. */
  z.strictObject({ method: z.literal('read-kept'), run: RunId, epoch: z.int(), target: RunId }),
  /** Every few seconds, so that a runner that is stopped, not dead, is seen too. */
  z.strictObject({ method: z.literal('beat') }),
]);
export type RunnerRequest = z.infer<typeof RunnerRequest>;

/** Refusals of a claim after which the run is nobody's here. After any other the runner ends: it may own the run. */
export const CLAIM_REFUSALS: readonly ErrorCode[] = [
  'E_STALE_EPOCH',
  'E_NOT_FOUND',
  'E_UNAVAILABLE',
];

/** A request on the wire. */
export const NumberedRequest = z.strictObject({ id: z.int().min(1), request: RunnerRequest });
export type NumberedRequest = z.infer<typeof NumberedRequest>;

export const ClaimAnswer = z.strictObject({
  run: RunId,
  epoch: z.int(),
  /** From the journal, never from Redis; the runner verifies it again (profile `execute`). */
  envelope: Envelope,
  /** The authority chain the supervisor knows, genesis first, so that the runner replays it itself. */
  authority: z.array(Envelope),
  node: z.strictObject({
    id: z.string(),
    name: z.string(),
    labels: z.record(z.string(), z.string()),
    /** It serves: part of its admission. */
    realms: z.array(z.string()),
  }),
  bootId: z.string(),
  events: z.array(JournalEvent),
  committed: z.array(DesiredResource),
  /** What else the deployment has here: retained data, and what failed runs were signed to keep. */
  remains: z.array(DesiredResource).optional(),
  /** Name → version of the secrets the run was given: never a value (G9). */
  secrets: z.record(Name, z.string()),
  /** A cancel of the run was accepted: it goes no way but back. */
  isCancelled: z.boolean(),
  /** The plan that `expect` names, where this node still has it: to show what changed since. */
  expectedPlan: PlanDocument.nullable(),
});
export type ClaimAnswer = z.infer<typeof ClaimAnswer>;

/** The events of a kept run, and of its steps those that are not undone. */
export const KeptAnswer = z.strictObject({ events: z.array(JournalEvent) });
export type KeptAnswer = z.infer<typeof KeptAnswer>;

export const AppendAnswer = z.strictObject({ seq: z.int() });

/** Version → absolute path of the file with its value. */
export const SecretsAnswer = z.strictObject({ files: z.record(z.string(), z.string()) });

export const SupervisorAnswer = z.discriminatedUnion('ok', [
  z.strictObject({ id: z.int(), ok: z.literal(true), value: z.unknown() }),
  z.strictObject({ id: z.int(), ok: z.literal(false), problem: Problem }),
]);
export type SupervisorAnswer = z.infer<typeof SupervisorAnswer>;

/** Sent by the supervisor unasked. */
export const SupervisorNotice = z.discriminatedUnion('notice', [
  /** Stop the run after the call in flight was aborted; undo follows (design §10). */
  z.strictObject({ notice: z.literal('cancel'), run: RunId }),
  /** As `cancel`: the authority does not stand behind the run any more, and this is why. */
  z.strictObject({ notice: z.literal('refuse'), run: RunId, problem: Problem }),
  /** Finish the step in flight, start no other, then exit. */
  z.strictObject({ notice: z.literal('drain') }),
]);
export type SupervisorNotice = z.infer<typeof SupervisorNotice>;

/** Bytes of one line; larger is a broken peer. */
export const LINE_BYTES_MAX = 32 * 1024 * 1024;
