/**
 * The log that conmon keeps: `<RFC 3339 time> stdout|stderr F|P <text>` per line, where `P` says that
 * the line goes on (Kubernetes CRI log format). conmon starts the file over when it is full.
 */
import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LogOptions } from '@hypha/sal';
import { CONTAINER_LIMITS } from './container-limits.ts';

const READ_BYTES_MAX = 1024 * 1024;
const LINE = /^\S+ (stdout|stderr) ([FP]) (.*)$/s;

/** Whole lines of output out of pieces of the file, cut anywhere. */
export class LogAssembler {
  #rest = Buffer.alloc(0);
  /** Stream → what its unfinished line has so far. */
  readonly #open = new Map<string, string>();

  push(bytes: Uint8Array): readonly string[] {
    const whole = Buffer.concat([this.#rest, bytes]);
    const end = whole.lastIndexOf(0x0a) + 1;
    this.#rest = whole.subarray(end);
    const lines = whole.subarray(0, end).toString('utf8').split('\n').slice(0, -1);
    return lines.flatMap((line) => this.#finish(line));
  }

  #finish(line: string): readonly string[] {
    const [, stream = '', tag, text = ''] = LINE.exec(line) ?? [];
    if (stream === '') return [];
    const joined = (this.#open.get(stream) ?? '') + text;
    const isDone = tag === 'F' || joined.length >= CONTAINER_LIMITS.logLineBytesMax;
    this.#open.set(stream, isDone ? '' : joined);
    return isDone ? [joined] : [];
  }
}

/** The last lines; none when there is no log. */
export async function readLogTail(path: string, tail: number | null): Promise<readonly string[]> {
  const lines = new LogAssembler().push(await readFile(path).catch(() => new Uint8Array()));
  return tail === null ? lines : lines.slice(lines.length - Math.min(tail, lines.length));
}

/**
 * Lines, oldest first; with `follow` until the signal is aborted, across restarts and replacements.
 * @param findPath of the log that is the current one now
 */
export async function* readLog(
  findPath: () => Promise<string | undefined>,
  { follow, tail, signal }: LogOptions,
): AsyncGenerator<string> {
  let cursor = await openCursor(findPath);
  const first = await readNew(cursor, Number.POSITIVE_INFINITY);
  const shown = tail === null ? first : first.slice(first.length - Math.min(tail, first.length));
  yield* shown;
  while (follow && !signal.aborted) {
    const lines = await readNew(cursor, READ_BYTES_MAX);
    yield* lines;
    if (lines.length > 0) continue;
    await sleep(CONTAINER_LIMITS.logPollMs, undefined, { signal }).catch(() => undefined);
    const next = await openCursor(findPath);
    const isSame = next.path === cursor.path && next.file === cursor.file;
    if (!isSame || next.size < cursor.offset) cursor = next;
  }
}

/**
 * Before a start: a container that is restarted for ever must not fill the pool with logs that are
 * each short enough for conmon.
 */
export async function trimLog(path: string): Promise<void> {
  const info = await stat(path).catch(() => undefined);
  if (info === undefined || info.size <= CONTAINER_LIMITS.logBytesMax / 2) return;
  const bytes = await readFile(path);
  const tail = bytes.subarray(bytes.length - CONTAINER_LIMITS.logBytesMax / 4);
  await writeFile(path, tail.subarray(tail.indexOf(0x0a) + 1));
}

interface Cursor {
  readonly path: string | undefined;
  /** Inode: another one is another file under the same name. */
  readonly file: number;
  readonly size: number;
  readonly lines: LogAssembler;
  offset: number;
}

async function openCursor(findPath: () => Promise<string | undefined>): Promise<Cursor> {
  const path = await findPath();
  const info = path === undefined ? undefined : await stat(path).catch(() => undefined);
  return {
    path,
    file: info?.ino ?? 0,
    size: info?.size ?? 0,
    lines: new LogAssembler(),
    offset: 0,
  };
}

async function readNew(cursor: Cursor, bytesMax: number): Promise<readonly string[]> {
  const file =
    cursor.path === undefined ? undefined : await open(cursor.path).catch(() => undefined);
  if (file === undefined) return [];
  try {
    const { size } = await file.stat();
    const length = Math.min(size - cursor.offset, bytesMax);
    if (length <= 0) return [];
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, cursor.offset);
    cursor.offset += bytesRead;
    return cursor.lines.push(buffer.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}
