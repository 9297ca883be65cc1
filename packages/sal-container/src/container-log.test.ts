import { appendFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { LogAssembler, readLog, readLogTail, trimLog } from './container-log.ts';

let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hypha-log-'));
  path = join(folder, 'log');
});

afterEach(() => rm(folder, { recursive: true }));

const line = (text: string, tag = 'F', stream = 'stdout') =>
  `2026-11-21T08:12:55.470165333+00:00 ${stream} ${tag} ${text}\n`;

async function collect(lines: AsyncIterable<string>, count: number): Promise<string[]> {
  const collected: string[] = [];
  for await (const each of lines) {
    collected.push(each);
    if (collected.length === count) break;
  }
  return collected;
}

test('joins the pieces of a line, per stream, wherever the file was cut', () => {
  const bytes = Buffer.from(
    line('one ', 'P') + line('loud', 'F', 'stderr') + line('lïne') + line('') + line('last'),
  );
  for (let cut = 0; cut <= bytes.length; cut++) {
    const assembler = new LogAssembler();
    const lines = [
      ...assembler.push(bytes.subarray(0, cut)),
      ...assembler.push(bytes.subarray(cut)),
    ];
    expect(lines).toEqual(['loud', 'one lïne', '', 'last']);
  }
});

test('cuts a line that never ends', () => {
  const assembler = new LogAssembler();
  const piece = Buffer.from(line('x'.repeat(8192), 'P'));
  const lines = Array.from({ length: 20 }, () => assembler.push(piece)).flat();
  expect(lines).toHaveLength(2);
  expect(lines[0]).toHaveLength(CONTAINER_LIMITS.logLineBytesMax);
});

test('skips what is not a line of a log', () => {
  expect(new LogAssembler().push(Buffer.from(`\u0000\u0000garbage\n${line('good')}`))).toEqual([
    'good',
  ]);
});

test('reads the tail, and nothing where there is no log', async () => {
  expect(await readLogTail(path, 5)).toEqual([]);
  await writeFile(path, line('a') + line('b') + line('c'));
  expect(await readLogTail(path, 2)).toEqual(['b', 'c']);
  expect(await readLogTail(path, 0)).toEqual([]);
  expect(await readLogTail(path, null)).toEqual(['a', 'b', 'c']);
});

test('follows appended lines, a file started over and another file', async () => {
  const stop = new AbortController();
  const other = join(folder, 'other');
  let current: string | undefined;
  const lines = readLog(async () => current, { follow: true, tail: 1, signal: stop.signal });
  const next = () => lines.next().then(({ value }) => value);

  const first = next();
  await writeFile(path, line('a') + line('b'));
  current = path;
  expect(await first).toBe('a');
  expect(await next()).toBe('b');

  const third = next();
  await appendFile(path, line('c'));
  expect(await third).toBe('c');

  const fourth = next();
  await writeFile(path, line('d'));
  expect(await fourth).toBe('d');

  const fifth = next();
  await writeFile(other, line('e'));
  current = other;
  expect(await fifth).toBe('e');

  const end = lines.next();
  stop.abort();
  expect((await end).done).toBe(true);
});

test('without follow it ends by itself', async () => {
  await writeFile(path, line('a') + line('b'));
  const options = { follow: false, tail: null, signal: AbortSignal.timeout(5000) };
  expect(
    await collect(
      readLog(async () => path, options),
      10,
    ),
  ).toEqual(['a', 'b']);
});

test('trims a long log to whole last lines, and leaves a short one alone', async () => {
  await writeFile(path, line('short'));
  await trimLog(path);
  expect(await readFile(path, 'utf8')).toBe(line('short'));

  const lines = Array.from({ length: 60_000 }, (_, index) => line(`number ${index}`));
  await writeFile(path, lines.join(''));
  await trimLog(path);
  expect((await stat(path)).size).toBeLessThanOrEqual(CONTAINER_LIMITS.logBytesMax / 4);
  const kept = await readLogTail(path, null);
  expect(kept.at(-1)).toBe('number 59999');
  expect(kept[0]).toMatch(/^number \d+$/);
});
