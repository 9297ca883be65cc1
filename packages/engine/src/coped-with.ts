import type { DesiredResource } from '@hypha/protocol';
import type { SagaContext } from './saga-context.ts';

/**
 * What the deployment had before and the script tried to declare in vain, going on all the same: it is as it was (E3),
 * and it stays. Only what a script no longer names is pruned.
 */
export function listCopedWith({ record, grant, sals }: SagaContext): DesiredResource[] {
  const failed = new Set<string>();
  for (const { step, verb, name } of record.intents.values()) {
    if (name === null || record.outcomes.get(step)?.type !== 'step-error') continue;
    const declares = sals.findVerb(verb);
    if (declares?.class === 'ensure') failed.add(`${declares.kind} ${name}`);
  }
  return grant.committed.filter(
    ({ rid, kind, name }) => failed.has(`${kind} ${name}`) && !record.declared.has(rid),
  );
}
