/**
 * Signed reports that wait for the ledger, on disk in a ring of segments: a new one is appended to the
 * newest, and over the bound the oldest segment is dropped whole. The gap shows by `seq`.
 *
 * Invariants: B1 a report is on disk when `append` resolves. B2 `seq` never comes twice, also after a
 * restart: segments are dropped by age, never because they were delivered, so the last seq stays known.
 */
import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Envelope, parseStrictJson } from '@hypha/protocol';
import { isAbsent, syncFolder } from '@hypha/protocol/node';
import { z } from 'zod';
import { IDENTITY_LIMITS } from './limits.ts';

export interface BufferedReport {
  readonly seq: number;
  readonly envelope: Envelope;
}

const Line = z.strictObject({ seq: z.int().min(1), envelope: Envelope });

interface Segment {
  readonly path: string;
  /** Its lowest seq; part of the file's name. */
  readonly first: number;
}

export interface RingBounds {
  readonly reportsPerSegment: number;
  readonly segments: number;
}

export class ReportBuffer {
  readonly #folder: string;
  readonly #bounds: RingBounds;
  /** Oldest first. */
  readonly #segments: Segment[];
  #newestCount: number;
  #lastSeq: number;
  /** Newest seq the ledger is known to have. */
  #deliveredSeq = 0;

  private constructor(folder: string, bounds: RingBounds, segments: Segment[]) {
    this.#folder = folder;
    this.#bounds = bounds;
    this.#segments = segments;
    this.#newestCount = bounds.reportsPerSegment;
    this.#lastSeq = 0;
  }

  /** A line that a crash cut short is dropped: it was never acknowledged to anyone. */
  static async open(folder: string, bounds: RingBounds = IDENTITY_LIMITS): Promise<ReportBuffer> {
    const buffer = new ReportBuffer(folder, bounds, await listSegments(folder));
    const newest = buffer.#segments.at(-1);
    if (newest === undefined) return buffer;
    const { reports, isWhole } = await readSegment(newest);
    buffer.#lastSeq = reports.at(-1)?.seq ?? newest.first - 1;
    // Nothing is written behind a torn line: the next report starts a segment of its own.
    if (isWhole) buffer.#newestCount = reports.length;
    return buffer;
  }

  /** What the next report has to carry. */
  get nextSeq(): number {
    return this.#lastSeq + 1;
  }

  get isDrained(): boolean {
    return this.#deliveredSeq >= this.#lastSeq;
  }

  /** Calls take turns. Throws `RangeError` unless `report.seq` is `nextSeq`. */
  async append(report: BufferedReport): Promise<void> {
    if (report.seq !== this.nextSeq) throw new RangeError(`report ${report.seq} is not next`);
    if (this.#newestCount >= this.#bounds.reportsPerSegment) await this.#startSegment(report.seq);
    const newest = this.#segments.at(-1);
    if (newest === undefined) throw new RangeError('no segment was started');
    const file = await open(newest.path, 'a', 0o600);
    try {
      await file.appendFile(`${JSON.stringify(report)}\n`);
      await file.datasync();
    } catch (error) {
      // Whatever stands there now, nothing is written behind it.
      this.#newestCount = this.#bounds.reportsPerSegment;
      throw error;
    } finally {
      await file.close();
    }
    this.#newestCount++;
    this.#lastSeq = Math.max(this.#lastSeq, report.seq);
  }

  /** The oldest reports the ledger does not have, in order. */
  async pending(countMax: number): Promise<readonly BufferedReport[]> {
    const found: BufferedReport[] = [];
    for (const [index, segment] of [...this.#segments].entries()) {
      const following = this.#segments[index + 1]?.first ?? this.nextSeq;
      if (following - 1 <= this.#deliveredSeq) continue;
      for (const report of (await readSegment(segment)).reports) {
        if (report.seq > this.#deliveredSeq) found.push(report);
        if (found.length === countMax) return found;
      }
    }
    return found;
  }

  /** The ledger has everything up to `seq`; when that is more than we made, we lost count and go on above. */
  delivered(seq: number): void {
    this.#deliveredSeq = Math.max(this.#deliveredSeq, seq);
    this.#lastSeq = Math.max(this.#lastSeq, seq);
  }

  async #startSegment(first: number): Promise<void> {
    const path = join(this.#folder, `reports-${String(first).padStart(16, '0')}.jsonl`);
    // A segment of this name holds only a line that was cut short.
    const file = await open(path, 'w', 0o600);
    await file.close();
    await syncFolder(this.#folder);
    if (this.#segments.at(-1)?.first === first) this.#segments.pop();
    this.#segments.push({ path, first });
    this.#newestCount = 0;
    while (this.#segments.length > this.#bounds.segments) {
      const oldest = this.#segments.shift();
      if (oldest !== undefined) await rm(oldest.path, { force: true });
    }
  }
}

async function listSegments(folder: string): Promise<Segment[]> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  return (await readdir(folder))
    .flatMap((name) => {
      const first = /^reports-(\d{16})\.jsonl$/.exec(name)?.[1];
      return first === undefined ? [] : [{ path: join(folder, name), first: Number(first) }];
    })
    .sort((a, b) => a.first - b.first);
}

/** Every report that can be read, in order. A segment dropped meanwhile is empty. */
async function readSegment({
  path,
}: Segment): Promise<{ readonly reports: BufferedReport[]; readonly isWhole: boolean }> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (isAbsent(error)) return '';
    throw error;
  });
  const lines = text.split('\n');
  const rest = lines.pop();
  const reports = lines.flatMap((line) => parseLine(line) ?? []);
  return { reports, isWhole: rest === '' && reports.length === lines.length };
}

function parseLine(line: string): BufferedReport | undefined {
  try {
    return Line.parse(parseStrictJson(line));
  } catch {
    return undefined;
  }
}
