/** `hypha simulate`: from a script's file to the end of its run, told as it goes. */
import { resolve } from 'node:path';
import { fromProblem, HyphaError, Json, Problem } from '@hypha/protocol';
import { SandboxPool } from '@hypha/sandbox';
import { compileScript, parseInput } from '../compile/index.ts';
import { EXIT } from '../exit-code.ts';
import { parsePairs } from '../option-parsers.ts';
import { describeError, duration, type Output } from '../output.ts';
import { RunNarrator } from '../run-narrative.ts';
import { stepRows } from '../run-steps.ts';
import { placeError } from '../script-place.ts';
import { deploymentOf } from '../script-work.ts';
import type { Session } from '../session.ts';
import { stopSignal } from '../up/stop-signal.ts';
import { type CrashReport, crashEverywhere } from './crash-everywhere.ts';
import { SimulatedPlace } from './simulated-place.ts';
import { type SimulatedRun, type SimulationEnd, simulateRun } from './simulated-run.ts';
import { draftSimulation, type SimulationFlags } from './simulation-draft.ts';
import { parseStepFault } from './step-fault.ts';

export interface FileSimulationFlags extends SimulationFlags {
  readonly input: readonly string[];
  readonly label: readonly string[];
  readonly fail: readonly string[];
  readonly crashEveryStep?: true;
}

/** Answers the exit code: 0 when it succeeded, and after every crash as well. */
export async function simulateFile(
  session: Session,
  file: string,
  flags: FileSimulationFlags,
): Promise<number> {
  const { output } = session;
  const faults = flags.fail.map(parseStepFault);
  const labels = parsePairs(flags.label, '--label');
  const script = await compileScript(resolve(file));
  const input = parseInput(script.deployment.input, flags.input);
  const { realm, deployment } = deploymentOf(script, flags);
  // Not that of the environment: it is where a fleet lives.
  const { state } = session.flags;
  await using place = await SimulatedPlace.open(state === undefined ? undefined : resolve(state));
  const past = await place.past(realm, deployment);
  const given = { input, labels, faults, past, nowMs: session.nowMs() };
  const run = draftSimulation(script, given, flags);
  await using pool = new SandboxPool();
  await using before = flags.crashEveryStep === true ? await place.copy() : undefined;
  const cancel = stopSignal();
  const deps = { pool, cancel, onFault: () => undefined };
  const narrator = new RunNarrator(output);
  output.note(`simulating ${realm}/${deployment} generation ${run.payload.generation}`);
  const end = await simulateRun(run, {
    ...{ ...deps, place },
    onEvent: ({ body }) => {
      const text = narrator.tell(body, true);
      if (text !== undefined) output.line(text);
    },
  });
  await place.remember(realm, deployment, {
    ...{ v: 1, generation: run.payload.generation },
    desired: [...(end.desired ?? past.desired)],
  });
  assertStruck(run, end);
  const crashes =
    before === undefined || cancel.aborted
      ? undefined
      : await crashEverywhere(run, { ...deps, before });
  return report(output, run, end, crashes);
}

/** A fault that never came would let a test of the undo pass that tested nothing. */
function assertStruck({ faults }: SimulatedRun, { struck, events }: SimulationEnd): void {
  const missed = faults.filter(({ target }) => !struck.has(target));
  if (missed.length === 0) return;
  const steps = stepRows(events.map(({ body }) => body)).length;
  const names = missed.map(({ target }) => target).join(', ');
  throw new HyphaError('E_ARGUMENT', `--fail ${names}: the run came by no such step`, {
    hint: `it made ${steps} steps; name one that changes something by its number or its resource`,
  });
}

/** Answers the exit code. */
function report(
  output: Output,
  run: SimulatedRun,
  end: SimulationEnd,
  crashes: CrashReport | undefined,
): number {
  const bodies = end.events.map(({ body }) => body);
  const finished = bodies.find((body) => body.type === 'finished');
  const committed = bodies.find((body) => body.type === 'committed');
  const problem = problemOf(run, finished?.problem ?? null);
  if (output.format !== 'table') {
    const { realm, deployment, generation } = run.payload;
    const names = (list: SimulationEnd['removed']) =>
      list.map(({ kind, name }) => ({ kind, name }));
    output.item(
      {
        ...{ simulated: true, run: run.run, realm, deployment, generation },
        state: finished?.state ?? 'none',
        problem: problem === undefined ? null : shownProblem(problem),
        output: committed === undefined ? null : Json.parse(JSON.parse(committed.output)),
        steps: stepRows(bodies),
        logs: bodies
          .filter((body) => body.type === 'log')
          .map(({ message, fields }) => ({ message, fields })),
        ...{ undone: finished?.undone ?? 0, leftovers: finished?.leftovers ?? [] },
        ...{ removed: names(end.removed), retained: names(end.retained), tookMs: end.tookMs },
        ...(crashes === undefined ? {} : { crashes }),
      },
      [],
    );
  }
  if (problem !== undefined) output.line(describeError(problem));
  for (const { kind, name } of end.removed) output.line(`removed       ${kind} ${name}`);
  for (const { kind, name } of end.retained)
    output.line(`retained      ${kind} ${name}: no longer declared, its data stays`);
  if (committed !== undefined) output.line(`output        ${committed.output}`);
  if (end.tookMs > 0) output.line(`waited        ${duration(end.tookMs)}, on the node's clock`);
  if (crashes !== undefined) reportCrashes(output, crashes);
  const isSame = crashes === undefined || crashes.differences.length === 0;
  return finished?.state === 'succeeded' && isSame ? EXIT.ok : EXIT.failedRun;
}

function reportCrashes(output: Output, { points, tried, differences }: CrashReport): void {
  for (const { point, differs } of differences) {
    output.line(`crash ${output.style('red', 'DIFFERS')} ${point}: ${differs}`);
  }
  const some = tried === points ? `${points} points` : `${tried} of ${points} points`;
  output.line(
    differences.length === 0
      ? `crashes       ${some}, and each time the same end, output, resources and effects`
      : `crashes       ${some}, and another end at ${differences.length} of them`,
  );
}

function problemOf(run: SimulatedRun, problem: Json): HyphaError | undefined {
  const parsed = Problem.safeParse(problem);
  if (!parsed.success) return undefined;
  return placeError(run.payload.script?.source ?? '', fromProblem(parsed.data));
}

function shownProblem({ code, message, hint, where }: HyphaError) {
  return { code, message, hint, ...(where === undefined ? {} : { where }) };
}
