import type { PlanDocument } from '@hypha/protocol';
import type { Output } from './output.ts';
import { plannedSubject, plannedText } from './plan-difference.ts';

/** For people: what changes stands out from what stays as it is. */
const STYLES: Readonly<Record<string, 'green' | 'yellow' | 'red' | 'dim'>> = {
  ...({ create: 'green', update: 'yellow', replace: 'yellow', run: 'yellow' } as const),
  ...({ remove: 'red', 'delete-data': 'red', refuse: 'red' } as const),
  ...({ 'no-op': 'dim', read: 'dim', wait: 'dim', retain: 'dim' } as const),
};

/** @param shown `node`: its name; `next`: the command that applies exactly this */
export function showPlan(
  output: Output,
  plan: PlanDocument,
  shown: { readonly node: string; readonly next?: string },
): void {
  if (output.format !== 'table') {
    output.item(plan, []);
    return;
  }
  const { realm, deployment, generation, hash, state, steps, removals } = plan;
  output.line(`plan of ${realm}/${deployment} generation ${generation} on ${shown.node}`);
  const rows = [
    ...steps.map((step) => ({ at: String(step.step), what: plannedSubject(step), planned: step })),
    ...removals.map((removal) => ({
      at: '',
      what: plannedSubject(removal),
      planned: removal,
    })),
  ];
  output.list(
    rows,
    [
      { title: 'step', cell: ({ at }) => at },
      { title: 'resource', cell: ({ what }) => what },
      {
        title: 'change',
        cell: ({ planned }) => output.style(STYLES[planned.action] ?? 'dim', plannedText(planned)),
      },
    ],
    'the script makes no step',
  );
  output.line(summaryOf(plan));
  if (state === 'partial') {
    output.line(output.style('yellow', `partial: ${plan.reason ?? 'there it ends'}`));
    return;
  }
  if (hash === undefined) return;
  output.line(`hash          ${hash}`);
  if (shown.next !== undefined) output.note(`exactly this: ${shown.next}, with the same flags`);
}

function summaryOf({ steps, removals }: PlanDocument): string {
  const counts = new Map<string, number>();
  for (const { action } of [...steps, ...removals]) {
    counts.set(action, (counts.get(action) ?? 0) + 1);
  }
  const parts = [...counts].map(([action, count]) => `${count} ${action}`);
  return `in all        ${parts.join(', ') || 'nothing'}`;
}
