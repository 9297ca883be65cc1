import {
  canonicalBytes,
  type ErrorCode,
  GuestDisplaced,
  type GuestProgram,
  type GuestRequest,
  type GuestTurn,
  HyphaError,
  hex,
  isHyphaError,
  type Verifier,
} from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import type { Guest, RunGrant } from './ports.ts';
import { callWithRetries, delayMsAfter, isRetryable } from './retry.ts';
import { assertGoingOn, type SagaContext } from './saga-context.ts';
import { GuestLost, isWayOut, RunFailure } from './saga-error.ts';
import { ScriptSession } from './script-session.ts';
import type { OpenStepRunner } from './step-runner.ts';

/** A guest that threw one of these was stopped for what the script did: a fresh one would do it again. */
const DELIBERATE_ENDS: readonly ErrorCode[] = ['E_CPU', 'E_MEMORY', 'E_OUTPUT', 'E_SCRIPT_SYNTAX'];

export type ScriptEnd =
  | { readonly ended: true; readonly output: string }
  /**
   * Another runner takes over: drained, or with nothing to do before `wakeAtMs`, epoch milliseconds. What is
   * recorded may not be durable yet.
   */
  | { readonly ended: false; readonly wakeAtMs?: number };

export interface ScriptSources {
  readonly openGuest: (request: GuestRequest) => Promise<Guest>;
  readonly openRunner: OpenStepRunner;
}

/**
 * Runs the script to its end. A guest that is lost is replaced by a fresh one, led through the record by replay:
 * once, in a host that nobody shares, when it was lost in its own turn, and as often as other scripts take its
 * host away. Throws `RunFailure` when the run fails.
 */
export async function runScript(
  context: SagaContext,
  sources: ScriptSources,
  program: GuestProgram,
): Promise<ScriptEnd> {
  let deaths = 0;
  let displacements = 0;
  for (;;) {
    try {
      return await runGuest(context, sources, program, deaths > 0);
    } catch (error) {
      if (!(error instanceof GuestLost)) throw error;
      const displaced = error.cause instanceof GuestDisplaced ? error.cause : undefined;
      if (displaced !== undefined) displacements += 1;
      else deaths += 1;
      const attempt = deaths + displacements;
      context.onFault({ phase: 'guest', step: 0, verb: null, attempt, error: error.cause });
      const { guestDeathsMax, guestDisplacementsMax } = ENGINE_LIMITS;
      if (deaths < guestDeathsMax && displacements <= guestDisplacementsMax) {
        if (isRetryable(displaced?.cause)) await pause(context, displacements);
        continue;
      }
      const times = displaced !== undefined ? displacements : deaths;
      throw new RunFailure(
        new HyphaError('E_SANDBOX', `the host of the script died ${times} times`, { cause: error }),
      );
    }
  }
}

/** A host of its own that cannot be had now may be there later. A stop ends this too, and is seen by the next guest. */
async function pause({ clock, stop }: SagaContext, attempt: number): Promise<void> {
  await clock.sleep(delayMsAfter(attempt, clock), stop).catch(() => undefined);
}

async function runGuest(
  context: SagaContext,
  { openGuest, openRunner }: ScriptSources,
  program: GuestProgram,
  alone: boolean,
): Promise<ScriptEnd> {
  const { grant, stop } = context;
  const request = { run: grant.run, realm: grant.payload.realm, alone };
  const session = new ScriptSession(context, openRunner, program.nowMs);
  let guest: Guest | undefined;
  try {
    const opened = await openWithRetries(context, () => openGuest(request));
    guest = opened;
    await session.absorb(await inGuest(context, () => opened.start(program, stop)));
    for (;;) {
      const step = await session.next();
      if (step.next === 'end') return { ended: true, output: outputOf(session) };
      if (step.next === 'drained') return { ended: false };
      if (step.next === 'park') return { ended: false, wakeAtMs: step.wakeAtMs };
      const { outcome } = step;
      await session.absorb(await inGuest(context, () => opened.deliver(outcome, stop)));
    }
  } catch (error) {
    throw await session.abandon(error);
  } finally {
    session.close();
    await guest?.close();
  }
}

/** The script has nothing left to wait for: either it returned, or it never will. */
function outputOf(session: ScriptSession): string {
  session.assertNothingMissed();
  if (session.output === undefined) {
    throw new RunFailure(
      new HyphaError('E_SCRIPT', 'the script waits for something that never comes', {
        hint: 'await only what calls return; a promise of your own must be settled',
      }),
    );
  }
  if (!isJsonText(session.output)) {
    throw new RunFailure(new HyphaError('E_SANDBOX', 'the output of the guest is not JSON'));
  }
  return session.output;
}

function isJsonText(text: string): boolean {
  try {
    JSON.parse(text);
    return text.isWellFormed();
  } catch {
    return false;
  }
}

/** A machine that cannot start a host now may do so later; that is not the script's doing. */
async function openWithRetries(
  context: SagaContext,
  openGuest: () => Promise<Guest>,
): Promise<Guest> {
  try {
    return await callWithRetries(
      {
        clock: context.clock,
        signal: context.stop,
        attemptsMax: ENGINE_LIMITS.tryAttemptsMax,
        totalMsMax: ENGINE_LIMITS.tryMsMax,
        isRetryable,
        onFault: (attempt, error) =>
          context.onFault({ phase: 'guest', step: 0, verb: null, attempt, error }),
      },
      openGuest,
    );
  } catch (error) {
    if (isWayOut(error)) throw error;
    assertGoingOn(context);
    if (isHyphaError(error)) throw new RunFailure(error);
    throw new GuestLost(error);
  }
}

async function inGuest(context: SagaContext, turn: () => Promise<GuestTurn>): Promise<GuestTurn> {
  try {
    return await turn();
  } catch (error) {
    // Aborting a guest kills it; the reason of the stop is the reason of the run.
    assertGoingOn(context);
    if (isHyphaError(error) && DELIBERATE_ENDS.includes(error.code)) throw new RunFailure(error);
    throw new GuestLost(error);
  }
}

/** @param nowMs wall clock of the run's first start, epoch milliseconds: the same in every replay */
export function programOf(verifier: Verifier, grant: RunGrant, nowMs: number): GuestProgram {
  const { payload, node } = grant;
  const { cpuMs, memoryBytes, outputBytes, hostCalls } = payload.limits;
  return {
    source: payload.script?.source ?? '',
    input: payload.input,
    seed: seedOf(verifier, grant),
    nowMs,
    node: { id: node.id, name: node.name, labels: node.labels },
    limits: { cpuMs, memoryBytes, outputBytes, hostCalls },
  };
}

/** Hex SHA-256 of canonical JSON `[realm, deployment, generation, script digest, input]` (design §11). */
export function seedOf(verifier: Verifier, grant: RunGrant): string {
  const { realm, deployment, generation, script, input } = grant.payload;
  const parts = [realm, deployment, generation, script?.sha256 ?? null, input];
  return hex(verifier.sha256(canonicalBytes(parts)));
}
