import type { ResourceKind, ResourceRecord } from '../resource-kind.ts';
import { labelForRecord, labelText } from '../resource-label.ts';
import { VolumeSpec } from '../specs.ts';
import type { VolumeDriver } from './volume-driver.ts';

/** How snapshots that undo needs are told from those of scripts: a `Name` has no underscore. */
const RUN_SNAPSHOT = /^run_/;

export function volumeKind(driver: VolumeDriver): ResourceKind {
  return {
    kind: 'volume',
    async observe(record) {
      const label = await driver.find(record.rid);
      if (label === undefined) {
        return { state: 'missing', converged: false, addresses: [], info: {} };
      }
      const { size } = VolumeSpec.parse(record.spec);
      return {
        state: 'ready',
        converged: label.specHash === record.specHash && label.sizeBytes === size,
        addresses: [],
        info: { sizeBytes: label.sizeBytes, clonedFrom: label.clonedFrom },
      };
    },
    converge: (record, signal) => converge(driver, record, signal),
    async remove(record, { deleteData, signal }) {
      if (!deleteData) return;
      // The volume goes last: as long as anything is left, `list` still names it.
      for (const { name } of await driver.listSnapshots(record.rid)) {
        await driver.deleteSnapshot(record.rid, name, signal);
      }
      await driver.delete(record.rid, signal);
    },
    async settle(record, signal) {
      for (const { name } of await driver.listSnapshots(record.rid)) {
        if (RUN_SNAPSHOT.test(name)) await driver.deleteSnapshot(record.rid, name, signal);
      }
    },
    async list(signal) {
      const labels = await driver.list(signal);
      return labels.map((label) => ({ rid: label.rid, label: labelText(label) }));
    },
  };
}

/** A lost volume comes back empty, or as a new clone while its source is there. */
async function converge(
  driver: VolumeDriver,
  record: ResourceRecord,
  signal: AbortSignal,
): Promise<void> {
  const spec = VolumeSpec.parse(record.spec);
  const current = await driver.find(record.rid);
  if (current === undefined) {
    const clonedFrom = spec.cloneOf?.$rid ?? null;
    const hasSource = clonedFrom !== null && (await driver.find(clonedFrom)) !== undefined;
    const label = { ...labelForRecord(record), sizeBytes: spec.size, clonedFrom };
    await driver.create(label, hasSource ? clonedFrom : undefined, signal);
    return;
  }
  if (current.specHash === record.specHash && current.sizeBytes === spec.size) return;
  if (spec.size > current.sizeBytes) await driver.ensureRoom(spec.size - current.sizeBytes);
  await driver.setLimit(record.rid, spec.size, signal);
  const { specHash } = record;
  const { lastOp } = labelForRecord(record);
  await driver.setLabel({ ...current, specHash, sizeBytes: spec.size, lastOp }, signal);
}
