import {
  HyphaError,
  type JournalEvent,
  Json,
  type Page,
  PlanDocument,
  type PlanStep,
  planStepOf,
  type RunView,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';

/** Steps that one answer shows; a script rarely has a hundredth of it. */
const STEPS_MAX = 10_000;
const PAGE = 500;

interface PlanSource {
  journal(
    run: string,
    page: { readonly limit: number; readonly cursor?: string | undefined },
  ): Promise<Page<JournalEvent>>;
  findOutput(run: string): Promise<{ readonly output: string } | undefined>;
}

/**
 * What a run plans: of a plan run its output, of any other the same shape from the intents of its journal, without
 * a hash to expect. Throws `E_NOT_FOUND` when nothing is planned yet, `E_CONFLICT` when what the node committed is
 * no plan of this run.
 */
export async function readPlan(source: PlanSource, view: RunView): Promise<PlanDocument> {
  const { run, node, realm, deployment, generation, mode, state } = view;
  if (mode === 'plan') {
    const committed = await source.findOutput(run);
    if (committed === undefined) throw noPlan(view);
    return parsePlan(view, readOutput(view, committed.output));
  }
  const { steps, isWhole } = await readSteps(source, run);
  const isCommitted = state === 'committed' || state === 'succeeded';
  if (steps.length === 0 && !isCommitted) throw noPlan(view);
  const reason = isWhole ? `the run is ${state}` : `the first ${STEPS_MAX} steps are shown`;
  return {
    ...{ v: 1, run, node, realm, deployment, generation },
    ...(isCommitted && isWhole ? { state: 'complete' } : { state: 'partial', reason }),
    ...{ steps, removals: [] },
  };
}

/** What a run returned. Throws `E_CONFLICT`: a coordinator has it from a node, which may write what it likes. */
export function readOutput({ run }: RunView, text: string): Json {
  try {
    return Json.parse(JSON.parse(text));
  } catch (cause) {
    throw notReturned(run, 'not JSON', cause);
  }
}

function parsePlan({ run, node }: RunView, output: Json): PlanDocument {
  const { data: plan, error } = PlanDocument.safeParse(output);
  if (plan === undefined) throw notReturned(run, 'no plan', error);
  if (plan.run === run && plan.node === node) return plan;
  throw notReturned(run, `a plan of ${plan.run} on ${plan.node}`);
}

function notReturned(run: string, what: string, cause?: unknown): HyphaError {
  return new HyphaError('E_CONFLICT', `what ${run} returned is ${what}`, {
    cause,
    where: { path: run },
    hint: `look at what its node committed: hypha run journal ${run}`,
  });
}

async function readSteps(source: PlanSource, run: string) {
  const steps: PlanStep[] = [];
  let cursor: string | undefined;
  for (;;) {
    const page = await source.journal(run, { limit: PAGE, cursor });
    for (const { body } of page.items) {
      if (body.type !== 'step-intent') continue;
      if (steps.length === STEPS_MAX) return { steps, isWhole: false };
      steps.push(planStepOf(nodeVerifier, body));
    }
    if (page.nextCursor === null) return { steps, isWhole: true };
    cursor = page.nextCursor;
  }
}

function noPlan({ run, mode, state }: RunView): HyphaError {
  return new HyphaError('E_NOT_FOUND', `${mode} run ${run} has planned nothing: it is ${state}`, {
    hint: `follow it: hypha run events ${run}`,
  });
}
