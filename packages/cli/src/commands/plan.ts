import {
  HyphaError,
  PlanDocument,
  planHash,
  type RunId,
  type ScriptPayload,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Command } from 'commander';
import { showPlan } from '../plan-table.ts';
import { draftApply } from '../revision-draft.ts';
import { readScript } from '../script-work.ts';
import { sessionOf } from '../session.ts';
import { type SendFlags, sendWork } from '../work-sending.ts';
import { applyOptions } from './apply.ts';

export function planCommand(program: Command): void {
  applyOptions(program.command('plan <file>'))
    .description('what apply would change, step by step, and the hash that apply --expect takes')
    .action(async (file: string, flags: SendFlags, command: Command) => {
      const session = sessionOf(command);
      const { script, values } = await readScript(session, file, flags);
      const work = await draftApply(session, script, values, { ...flags, mode: 'plan' });
      await sendWork(session, work, flags, {
        tells: 'failure',
        show: async ({ run, name }, output) => {
          const plan = readPlan(work.payload, run, output);
          const expect = work.nodeNames.length === 1 ? plan.hash : `${name}=${plan.hash}`;
          showPlan(session.output, plan, {
            node: name,
            next: `hypha apply ${file} --expect ${expect}`,
          });
        },
      });
    });
}

/**
 * The plan that a run committed: its receipt was checked against this text, so it is the node's own.
 * @throws HyphaError `E_CONFLICT` for one that is not of what was signed
 */
function readPlan(payload: ScriptPayload, run: RunId, output: string | undefined): PlanDocument {
  const refuse = (what: string, cause?: unknown) =>
    new HyphaError('E_CONFLICT', `what ${run} returned is ${what}`, {
      cause,
      hint: 'the node may be of another version: hypha status',
    });
  let value: unknown;
  try {
    value = JSON.parse(output ?? 'null');
  } catch (cause) {
    throw refuse('not JSON', cause);
  }
  const parsed = PlanDocument.safeParse(value);
  if (!parsed.success) throw refuse('no plan', parsed.error);
  const plan = parsed.data;
  const { realm, deployment, script, input, deleteData } = payload;
  const subject = { node: plan.node, realm, deployment, input, deleteData };
  const hash = planHash(nodeVerifier, { ...subject, script: script?.sha256 ?? '' }, plan);
  if (plan.run !== run || plan.hash !== hash) throw refuse('a plan of something else');
  return plan;
}
