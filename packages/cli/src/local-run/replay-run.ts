/**
 * A run once more, from its record alone: the engine leads the script through the outcomes that were recorded,
 * and stops it where the record does. Nothing it calls has an effect.
 */
import { type RunJournal, runSaga } from '@hypha/engine';
import {
  type BodyOf,
  fromProblem,
  type GuestCall,
  type GuestLog,
  type GuestOutcome,
  HyphaError,
  type JournalBody,
  type JournalEvent,
  type NodeId,
  Problem,
  type ScriptPayload,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { composeSals } from '@hypha/sal';
import { openSimulatedSals } from '@hypha/sal/simulated';
import type { SandboxPool } from '@hypha/sandbox';
import { IdleClock } from './idle-clock.ts';
import { watchGuest } from './watched-guest.ts';
import { watchSals } from './watched-sals.ts';

/** All that a replay needs of a run. */
export interface RunRecording {
  readonly run: string;
  readonly payload: ScriptPayload;
  readonly events: readonly JournalEvent[];
  readonly node: {
    readonly id: NodeId;
    readonly name: string;
    readonly labels: Record<string, string>;
  };
}

export interface ReplayWatch {
  /** What the script did until it waited. */
  readonly onTurn: (turn: {
    readonly calls: readonly GuestCall[];
    readonly logs: readonly GuestLog[];
  }) => void;
  /** Before a recorded outcome is delivered. */
  readonly onOutcome: (outcome: GuestOutcome) => Promise<void>;
}

/** How the script went, as far as the record leads it. */
export type ReplayEnd =
  | { readonly state: 'committed'; readonly output: string }
  | { readonly state: 'failed'; readonly problem: HyphaError }
  /** It makes a step, or waits for one, of which there is no outcome on record. */
  | { readonly state: 'beyond'; readonly step: number };

/** Kinds of events that lead a script; the others tell what came of it. */
const LEADING: readonly JournalBody['type'][] = [
  ...(['accepted', 'started', 'step-intent', 'step-result', 'step-error', 'log'] as const),
];

/** A slower machine than the node must not run out of CPU where that did not. */
const CPU_MS_MIN = 20_000;
const CPU_CODES = ['E_CPU', 'E_MEMORY'];

/**
 * @param source of the script to lead; of another than the recorded one too
 * @throws HyphaError `E_NOT_FOUND` for a run that never began, `E_ARGUMENT` for one without a script
 */
export async function replayRun(
  recording: RunRecording,
  source: string,
  deps: { readonly pool: SandboxPool; readonly watch: ReplayWatch },
): Promise<ReplayEnd> {
  const { run, node } = recording;
  const started = assertReplayable(recording);
  const beyond = new AbortController();
  let stoppedAt: number | undefined;
  const clock = new IdleClock(started.at);
  const sals = watchSals(simulatedSals(node.id), ({ context }) => {
    stoppedAt = Math.min(stoppedAt ?? context.step, context.step);
    queueMicrotask(() => beyond.abort());
    return new Promise<never>((_resolve, reject) => {
      context.signal.addEventListener('abort', () => reject(context.signal.reason), { once: true });
    });
  });
  try {
    const outcome = await runSaga({
      grant: {
        ...{ run, node, payload: leadable(recording, source), epoch: 1, runner: 'replay' },
        ...{ bootId: 'replay', committed: [], secrets: {}, expectedPlan: null },
      },
      journal: recordedJournal(recording),
      sals,
      openGuest: async (request) => {
        const { watch, pool } = deps;
        const guest = await clock.during(() => pool.openGuest(request));
        return watchGuest(guest, {
          during: (work) => clock.during(work),
          onTurn: watch.onTurn,
          onOutcome: (outcome) => clock.during(() => watch.onOutcome(outcome)),
        });
      },
      clock,
      verifier: nodeVerifier,
      cancel: beyond.signal,
      drain: NEVER,
    });
    if (outcome.state === 'waiting') return { state: 'beyond', step: firstOpen(recording) };
    throw new HyphaError('E_INTERNAL', `the replay of ${run} ended as ${outcome.state}`);
  } catch (error) {
    if (!(error instanceof RecordOver)) throw error;
    return endOf(recording, error.bodies, stoppedAt);
  }
}

function assertReplayable({ run, payload, events }: RunRecording): JournalEvent {
  if (payload.script === undefined) {
    throw new HyphaError('E_ARGUMENT', `${run} is a ${payload.mode}: it has no script to replay`, {
      hint: `see its events: hypha run journal ${run}`,
    });
  }
  const started = events.find(({ body }) => body.type === 'started');
  if (started !== undefined) return started;
  throw new HyphaError('E_NOT_FOUND', `${run} never began: there is nothing to replay`, {
    hint: `see why: hypha run show ${run}`,
  });
}

/** What is held to a plan is not held to it again, and its seed stays that of the recorded script. */
function leadable({ payload, events }: RunRecording, source: string): ScriptPayload {
  const { expect: _, script, limits, ...rest } = payload;
  const code = problemOf(events)?.code;
  const isSlow = code !== undefined && CPU_CODES.includes(code);
  const cpuMs = isSlow ? limits.cpuMs : Math.max(limits.cpuMs, CPU_MS_MIN);
  return {
    ...rest,
    limits: { ...limits, cpuMs },
    ...(script === undefined ? {} : { script: { ...script, source } }),
  };
}

/** Their arguments are read as a node would; nothing is ever called. */
function simulatedSals(node: NodeId) {
  const { volume, container } = openSimulatedSals({ folder: '/nonexistent', node });
  return composeSals([volume, container]);
}

/** The engine went on where the record ends, with this. */
class RecordOver extends Error {
  readonly bodies: readonly JournalBody[];

  constructor(bodies: readonly JournalBody[]) {
    super('the record is over');
    this.name = 'RecordOver';
    this.bodies = bodies;
  }
}

function recordedJournal({ events }: RunRecording): RunJournal {
  return {
    recorded: events.filter(({ body }) => LEADING.includes(body.type)),
    append: async (bodies) => {
      const further = bodies.filter(({ type }) => type !== 'started' && type !== 'log');
      if (further.length > 0) throw new RecordOver(further);
    },
    readKept: (target) => Promise.reject(new HyphaError('E_NOT_FOUND', `not on record: ${target}`)),
  };
}

function endOf(
  recording: RunRecording,
  bodies: readonly JournalBody[],
  stoppedAt: number | undefined,
): ReplayEnd {
  const steps = [
    ...bodies.flatMap((body) => (body.type === 'step-intent' ? [body.step] : [])),
    ...(stoppedAt === undefined ? [] : [stoppedAt]),
  ];
  if (steps.length > 0) return { state: 'beyond', step: Math.min(...steps) };
  for (const body of bodies) {
    if (body.type === 'committed') return { state: 'committed', output: body.output };
    if (body.type === 'undo-intent' || body.type === 'finished') {
      const problem = Problem.safeParse(body.problem);
      if (problem.success) return { state: 'failed', problem: fromProblem(problem.data) };
    }
  }
  return { state: 'beyond', step: firstOpen(recording) };
}

/** The first step without an outcome on record. */
function firstOpen({ events }: RunRecording): number {
  const settled = new Set<number>();
  let last = 0;
  for (const { body } of events) {
    if (body.type === 'step-result' || body.type === 'step-error') settled.add(body.step);
    if (body.type === 'step-intent') last = Math.max(last, body.step);
  }
  for (let step = 1; step <= last; step++) if (!settled.has(step)) return step;
  return last + 1;
}

/** How the run ended on its node; undefined when it did not fail, or not yet. */
export function problemOf(events: readonly JournalEvent[]): HyphaError | undefined {
  for (const { body } of events) {
    if (body.type !== 'undo-intent' && body.type !== 'finished') continue;
    const problem = Problem.safeParse(body.problem);
    if (problem.success) return fromProblem(problem.data);
  }
  return undefined;
}

export function committedOf(events: readonly JournalEvent[]): BodyOf<'committed'> | undefined {
  return events.map(({ body }) => body).find((body) => body.type === 'committed');
}

const NEVER = new AbortController().signal;
