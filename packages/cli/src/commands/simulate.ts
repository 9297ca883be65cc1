import { resolve } from 'node:path';
import { fromProblem, HyphaError, isHyphaError, Json, Problem } from '@hypha/protocol';
import { SandboxPool } from '@hypha/sandbox';
import { type Command, Option } from 'commander';
import { EXIT } from '../exit-code.ts';
import { type CrashReport, crashEverywhere } from '../local-run/crash-everywhere.ts';
import { SimulatedPlace } from '../local-run/simulated-place.ts';
import { type SimulatedRun, type SimulationEnd, simulateRun } from '../local-run/simulated-run.ts';
import { draftSimulation, type SimulationFlags } from '../local-run/simulation-draft.ts';
import { parseStepFault } from '../local-run/step-fault.ts';
import { collect, parsePairs } from '../option-parsers.ts';
import { describeError, duration, type Output } from '../output.ts';
import { limitOptions } from '../run-limits.ts';
import { RunNarrator } from '../run-narrative.ts';
import { stepRows } from '../run-steps.ts';
import { placeError } from '../script-place.ts';
import { deploymentOf } from '../script-work.ts';
import { sessionOf } from '../session.ts';
import { stopSignal } from '../up/stop-signal.ts';

interface Flags extends SimulationFlags {
  readonly input: readonly string[];
  readonly label: readonly string[];
  readonly fail: readonly string[];
  readonly crashEveryStep?: true;
}

export function simulateCommand(program: Command): void {
  limitOptions(program.command('simulate <file>'))
    .description(
      'run a script here on simulated volumes and containers: no service, key or network; --state DIR keeps what it made for the next',
    )
    .option('-i, --input <k=v>', 'input of the script; repeat for more', collect, [])
    .option('--label <k=v>', 'label of the node; repeat for more', collect, [])
    .option('--name <deployment>', 'instead of the name in the script')
    .option('--realm <realm>', 'realm of the deployment')
    .option(
      '--fail <step=code>',
      'a step, or a resource by name, fails; repeat for more',
      collect,
      [],
    )
    .option('--crash-every-step', 'again with a crash before and after every write and effect')
    .addOption(
      new Option('--on-failure <what>', 'undo or keep what a failed run made')
        .choices(['undo', 'keep'])
        .default('undo'),
    )
    .option('--delete-data <names>', 'volumes whose data may go when no longer declared')
    .action(async (file: string, flags: Flags, command: Command) => {
      const session = sessionOf(command);
      const { output } = session;
      const faults = flags.fail.map(parseStepFault);
      const labels = parsePairs(flags.label, '--label');
      // Only here: the bundler would slow every other command down.
      const { compileScript, parseInput } = await import('../compile/index.ts');
      const script = await compileScript(resolve(file));
      const input = parseInput(script.deployment.input, flags.input);
      const { realm, deployment } = deploymentOf(script, flags);
      // Not that of the environment: it is where a fleet lives.
      const { state } = session.flags;
      await using place = await SimulatedPlace.open(
        state === undefined ? undefined : resolve(state),
      );
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
      process.exitCode = report(output, run, end, crashes);
    });
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
  const error = fromProblem(parsed.data);
  return isHyphaError(error) ? placeError(run.payload.script?.source ?? '', error) : undefined;
}

function shownProblem({ code, message, hint, where }: HyphaError) {
  return { code, message, hint, ...(where === undefined ? {} : { where }) };
}
