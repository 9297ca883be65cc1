/**
 * What the desired record asks for, as work. Pure: the record and what is held in, an ordered list out.
 * Source: design §3, §10.
 */
import type { DesiredWorld, ResourceEntry } from '@hypha/journal';

export type ReconcileAction = 'converge' | 'settle' | 'remove';

export interface ReconcileTask {
  readonly action: ReconcileAction;
  readonly entry: ResourceEntry;
}

export interface DeploymentTasks {
  readonly realm: string;
  readonly deployment: string;
  /** One after another. */
  readonly tasks: readonly ReconcileTask[];
}

interface Claims {
  /** Resources an unfinished run has an intent on. */
  isLeftAlone(rid: string): boolean;
  /** Deployments in which a run is under way: nothing of them is removed. */
  isBusy(of: { readonly realm: string; readonly deployment: string }): boolean;
}

/** What others stand on comes up first and goes last. */
const RANKS: ReadonlyMap<string, number> = new Map([
  ['volume', 0],
  ['network', 1],
]);
const RANK_OTHERS = 2;

const rankOf = ({ entry }: ReconcileTask) => RANKS.get(entry.kind) ?? RANK_OTHERS;

export function planReconcile(world: DesiredWorld, claims: Claims): DeploymentTasks[] {
  // What a step of an uncommitted run declared stands before the record.
  const shadowed = new Set(world.provisional.map(({ rid }) => rid));
  const deployments = new Map<string, ResourceEntry[]>();
  for (const entry of world.records) {
    if (shadowed.has(entry.rid) || claims.isLeftAlone(entry.rid)) continue;
    const key = `${entry.realm}/${entry.deployment}`;
    deployments.set(key, [...(deployments.get(key) ?? []), entry]);
  }
  return [...deployments.values()].flatMap((entries) => {
    const [first] = entries;
    if (first === undefined) return [];
    const { realm, deployment } = first;
    const tasks = planDeployment(entries, claims.isBusy(first));
    return tasks.length === 0 ? [] : [{ realm, deployment, tasks }];
  });
}

function planDeployment(entries: readonly ResourceEntry[], isBusy: boolean): ReconcileTask[] {
  const of = (action: ReconcileAction, wanted: (entry: ResourceEntry) => boolean) =>
    entries.filter(wanted).map((entry): ReconcileTask => ({ action, entry }));
  const isCommitted = ({ status }: ResourceEntry) => status === 'committed';
  const removals = isBusy ? [] : of('remove', ({ status }) => status === 'removing');
  const settlements = isBusy ? [] : of('settle', (entry) => isCommitted(entry) && entry.unsettled);
  return [
    ...removals.sort((a, b) => rankOf(b) - rankOf(a)),
    ...of('converge', isCommitted).sort((a, b) => rankOf(a) - rankOf(b)),
    ...settlements,
  ];
}
