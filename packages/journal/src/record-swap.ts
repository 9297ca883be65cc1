/**
 * What commits and failures do to the desired record of one deployment. Pure: rows in, rows out, so that
 * every case is a table in a test. Source: design §10 "Commit point".
 */
import { DATA_KINDS, type DesiredResource } from '@hypha/protocol';

/** `retained`: data kept though no longer declared. `removing`: the reconciler is to remove it. */
export type RecordStatus = 'committed' | 'retained' | 'removing';

export interface RecordState extends DesiredResource {
  readonly status: RecordStatus;
  readonly createdBy: string;
  /** `<run>/<step>` that changed it last. */
  readonly lastOp: string;
  readonly deleteData: boolean;
  /** What a replace parked may still be there. */
  readonly unsettled: boolean;
}

/** What one step of an uncommitted run declared. */
export interface ProvisionalState extends DesiredResource {
  readonly run: string;
  /** Order of acceptance of the run. */
  readonly position: number;
  readonly step: number;
  readonly action: string;
  /** Its outcome is recorded. */
  readonly settled: boolean;
}

interface DeploymentRecord {
  readonly records: readonly RecordState[];
  /** Of every run of the deployment, oldest first. */
  readonly provisional: readonly ProvisionalState[];
}

/** The rows to write when `run` commits `desired`. Every provisional row of the deployment goes. */
export function planCommit(
  before: DeploymentRecord,
  commit: {
    run: string;
    desired: readonly DesiredResource[];
    deleteData: readonly string[];
  },
): RecordState[] {
  const declared = new Set(commit.desired.map(({ rid }) => rid));
  const undeclared = new Map<string, RecordState>();
  for (const step of before.provisional) {
    if (!declared.has(step.rid)) undeclared.set(step.rid, recordOf(step));
  }
  for (const record of before.records) {
    if (!declared.has(record.rid)) undeclared.set(record.rid, record);
  }
  const dropped = [...undeclared.values()]
    .map((record) => undeclare(record, commit.deleteData))
    .filter((record) => !before.records.includes(record));
  return [...commit.desired.map((resource) => declare(before, resource, commit.run)), ...dropped];
}

function declare(before: DeploymentRecord, resource: DesiredResource, run: string): RecordState {
  const record = before.records.find(({ rid }) => rid === resource.rid);
  const steps = before.provisional.filter(({ rid }) => rid === resource.rid);
  const changed = steps.findLast(({ action }) => action !== 'no-op');
  return {
    rid: resource.rid,
    kind: resource.kind,
    name: resource.name,
    spec: resource.spec,
    specHash: resource.specHash,
    status: 'committed',
    createdBy: record?.createdBy ?? steps[0]?.run ?? run,
    lastOp: changed === undefined ? (record?.lastOp ?? opOf(steps[0], run)) : opOf(changed, run),
    deleteData: false,
    unsettled: changed !== undefined || (record?.unsettled ?? false),
  };
}

/** Returns the record itself when nothing changes. */
function undeclare(record: RecordState, deleteData: readonly string[]): RecordState {
  if (record.status === 'removing') return record;
  if (!DATA_KINDS.has(record.kind)) return { ...record, status: 'removing' };
  if (deleteData.includes(record.name)) return { ...record, status: 'removing', deleteData: true };
  return record.status === 'retained' ? record : { ...record, status: 'retained' };
}

/**
 * The rows to write when `run` ends without commit and steps were not undone. What an older record covers
 * needs none, or is to be settled: the reconciler makes the world match that. What the run itself made becomes
 * `removing`; anything else existed before, or holds data, and is only listed.
 */
export function planUnwind(before: DeploymentRecord, run: string): RecordState[] {
  const left = new Map<string, RecordState>();
  for (const step of before.provisional) {
    if (step.run !== run || left.has(step.rid)) continue;
    const record = before.records.find(({ rid }) => rid === step.rid);
    // What it put in the place of the recorded one goes once that one is back.
    const isReplaced = step.action === 'replace' && !DATA_KINDS.has(step.kind);
    if (record !== undefined && isReplaced) left.set(step.rid, { ...record, unsettled: true });
    const covered =
      record !== undefined ||
      before.provisional.some((other) => other.run !== run && other.rid === step.rid);
    if (covered) continue;
    const removable = step.action === 'create' && !DATA_KINDS.has(step.kind);
    left.set(step.rid, { ...recordOf(step), status: removable ? 'removing' : 'retained' });
  }
  return [...left.values()];
}

function recordOf(step: ProvisionalState): RecordState {
  return {
    rid: step.rid,
    kind: step.kind,
    name: step.name,
    spec: step.spec,
    specHash: step.specHash,
    status: 'committed',
    createdBy: step.run,
    lastOp: opOf(step, step.run),
    deleteData: false,
    unsettled: false,
  };
}

function opOf(step: ProvisionalState | undefined, run: string): string {
  return step === undefined ? `${run}/0` : `${step.run}/${step.step}`;
}
