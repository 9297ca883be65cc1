import { appendFile, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Envelope } from '@hypha/protocol';
import { openTempDir } from '@hypha/testkit';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ReportBuffer } from './report-buffer.ts';

const BOUNDS = { reportsPerSegment: 3, segments: 3 };
const ENVELOPE: Envelope = { payloadType: 't', payload: 'cA==', signatures: [] };

const openBuffer = (folder: string) => ReportBuffer.open(folder, BOUNDS);
async function appendReports(buffer: ReportBuffer, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await buffer.append({ seq: buffer.nextSeq, envelope: ENVELOPE });
}
const seqsOf = async (buffer: ReportBuffer, countMax = 1000) =>
  (await buffer.pending(countMax)).map(({ seq }) => seq);
const newestFile = async (folder: string) =>
  join(folder, (await readdir(folder)).sort().at(-1) ?? 'none');

describe('a report buffer', () => {
  test('gives back what was appended, in order, until it is delivered', async () => {
    await using folder = await openTempDir();
    const buffer = await openBuffer(folder.path);
    expect(buffer.isDrained).toBe(true);
    await appendReports(buffer, 5);
    expect(await seqsOf(buffer)).toEqual([1, 2, 3, 4, 5]);
    expect(await seqsOf(buffer, 2)).toEqual([1, 2]);
    buffer.delivered(4);
    expect(await seqsOf(buffer)).toEqual([5]);
    buffer.delivered(5);
    expect(await seqsOf(buffer)).toEqual([]);
    expect(buffer.isDrained).toBe(true);
  });

  test('goes on counting after a restart, also when all was delivered', async () => {
    await using folder = await openTempDir();
    const first = await openBuffer(folder.path);
    await appendReports(first, 4);
    first.delivered(4);
    const again = await openBuffer(folder.path);
    expect(again.nextSeq).toBe(5);
    await appendReports(again, 1);
    expect((await seqsOf(again)).at(-1)).toBe(5);
  });

  test('drops the oldest over its bound, and the gap shows', async () => {
    await using folder = await openTempDir();
    const buffer = await openBuffer(folder.path);
    await appendReports(buffer, 20);
    const kept = await seqsOf(buffer);
    expect(kept.at(-1)).toBe(20);
    expect(kept.length).toBeGreaterThan(3 * 2);
    expect(kept.length).toBeLessThanOrEqual(3 * 3);
    expect(kept[0]).toBe(20 - kept.length + 1);
    expect(await readdir(folder.path)).toHaveLength(3);
  });

  test('is bounded through any number of restarts', async () => {
    await using folder = await openTempDir();
    for (let i = 0; i < 30; i++) await appendReports(await openBuffer(folder.path), 1);
    const buffer = await openBuffer(folder.path);
    expect(buffer.nextSeq).toBe(31);
    expect(await seqsOf(buffer)).toHaveLength(9);
    expect(await readdir(folder.path)).toHaveLength(3);
  });

  test('drops a line that a crash cut short, and writes nothing behind it', async () => {
    await using folder = await openTempDir();
    await appendReports(await openBuffer(folder.path), 2);
    const file = await newestFile(folder.path);
    const { length } = await readFile(file);
    await truncate(file, length - 5);
    const buffer = await openBuffer(folder.path);
    expect(await seqsOf(buffer)).toEqual([1]);
    await appendReports(buffer, 2);
    expect(await seqsOf(buffer)).toEqual([1, 2, 3]);
    expect(await seqsOf(await openBuffer(folder.path))).toEqual([1, 2, 3]);
  });

  test('uses the name of a segment again in which nothing was whole', async () => {
    await using folder = await openTempDir();
    await appendReports(await openBuffer(folder.path), 1);
    await truncate(await newestFile(folder.path), 10);
    const buffer = await openBuffer(folder.path);
    expect(buffer.nextSeq).toBe(1);
    await appendReports(buffer, 2);
    expect(await seqsOf(await openBuffer(folder.path))).toEqual([1, 2]);
  });

  test('skips what something else wrote between', async () => {
    await using folder = await openTempDir();
    const buffer = await openBuffer(folder.path);
    await appendReports(buffer, 2);
    await appendFile(await newestFile(folder.path), '{"seq":0}\n\u0000\n');
    await writeFile(join(folder.path, 'notes.txt'), 'x');
    const again = await openBuffer(folder.path);
    await appendReports(again, 1);
    expect(await seqsOf(again)).toEqual([1, 2, 3]);
  });

  test('goes on above what the ledger has when its own count was lost', async () => {
    await using folder = await openTempDir();
    const buffer = await openBuffer(folder.path);
    await appendReports(buffer, 1);
    buffer.delivered(1000);
    expect(buffer.nextSeq).toBe(1001);
    await appendReports(buffer, 1);
    expect(await seqsOf(buffer)).toEqual([1001]);
    expect((await openBuffer(folder.path)).nextSeq).toBe(1002);
  });

  test('takes no seq twice and none out of order', async () => {
    await using folder = await openTempDir();
    const buffer = await openBuffer(folder.path);
    await appendReports(buffer, 1);
    for (const seq of [1, 3]) {
      await expect(buffer.append({ seq, envelope: ENVELOPE })).rejects.toThrow(RangeError);
    }
  });

  test('loses nothing within its bound under any order of appends, deliveries and restarts', async () => {
    const action = fc.oneof(
      fc.integer({ min: 1, max: 4 }).map((count) => ({ append: count })),
      fc.nat({ max: 30 }).map((seq) => ({ deliver: seq })),
      fc.constant({ restart: true as const }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 20 }), async (actions) => {
        await using folder = await openTempDir();
        let buffer = await openBuffer(folder.path);
        let delivered = 0;
        let made = 0;
        for (const step of actions) {
          if ('append' in step) {
            await appendReports(buffer, step.append);
            made += step.append;
          } else if ('deliver' in step) {
            delivered = Math.max(delivered, Math.min(step.deliver, made));
            buffer.delivered(Math.min(step.deliver, made));
          } else {
            buffer = await openBuffer(folder.path);
            delivered = 0;
          }
          expect(buffer.nextSeq).toBe(made + 1);
        }
        const seqs = await seqsOf(buffer);
        const first = seqs[0] ?? made + 1;
        // One run without gaps up to the newest, and at least two whole segments of it.
        expect(seqs).toEqual(Array.from({ length: seqs.length }, (_, index) => first + index));
        expect(first + seqs.length - 1).toBe(made);
        expect(first).toBeLessThanOrEqual(Math.max(delivered + 1, made - 6 + 1));
      }),
      { numRuns: 60 },
    );
  });
});
