import { HyphaError, type JournalBody } from '@hypha/protocol';
import { afterEach, describe, expect, test } from 'vitest';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { JournalWriter } from './journal-writer.ts';
import { RunRecord } from './run-record.ts';
import { VirtualClock } from './testing/virtual-clock.ts';

type Append = { readonly bodies: readonly JournalBody[]; readonly end: (error?: unknown) => void };

function logLine(line: number, message = ''): JournalBody {
  return { type: 'log', line, message, fields: null };
}

function intent(step: number): JournalBody {
  return {
    type: 'step-intent',
    step,
    verb: 'box.ensure',
    class: 'ensure',
    args: null,
    rid: null,
    kind: 'box',
    name: 'a',
    action: 'create',
    before: null,
    desired: null,
  };
}

function result(step: number): JournalBody {
  return { type: 'step-result', step, result: null, durationMs: 0 };
}

describe('a journal writer', () => {
  const clock = new VirtualClock();
  let writers: JournalWriter[] = [];
  afterEach(() => {
    for (const writer of writers) writer.close();
    writers = [];
  });

  /** A writer whose appends end when the test says so. */
  function open() {
    const appends: Append[] = [];
    const record = new RunRecord([]);
    const journal = {
      append: (bodies: readonly JournalBody[]) =>
        new Promise<void>((resolve, reject) => {
          const end = (error?: unknown) => (error === undefined ? resolve() : reject(error));
          appends.push({ bodies, end });
        }),
    };
    const writer = new JournalWriter(journal, record, clock);
    writers.push(writer);
    const next = async (): Promise<Append> => {
      await expect.poll(() => appends.length, { interval: 1 }).toBeGreaterThan(0);
      const append = appends.shift();
      if (append === undefined) throw new Error('no append');
      return append;
    };
    return { writer, record, appends, next };
  }

  test('has one append in flight, and what gathers meanwhile goes with the next, in order', async () => {
    const { writer, record, appends, next } = open();
    const first = writer.append(intent(1));
    const one = await next();
    expect(one.bodies).toEqual([intent(1)]);
    const rest = [writer.append(intent(2)), writer.buffer(logLine(1)), writer.append(intent(3))];
    expect(appends).toEqual([]);
    expect([...record.intents.keys()]).toEqual([]);
    one.end();
    await first;
    expect([...record.intents.keys()]).toEqual([1]);
    const two = await next();
    expect(two.bodies).toEqual([intent(2), logLine(1), intent(3)]);
    two.end();
    await Promise.all(rest);
    expect([...record.intents.keys()]).toEqual([1, 2, 3]);
  });

  test('resolves no append before its own events are durable', async () => {
    const { writer, next } = open();
    const done: number[] = [];
    void writer.append(intent(1)).then(() => done.push(1));
    const one = await next();
    const second = writer.append(intent(2)).then(() => done.push(2));
    one.end();
    const two = await next();
    expect(done).toEqual([1]);
    two.end();
    await second;
    expect(done).toEqual([1, 2]);
  });

  test('divides what is too much for one append', async () => {
    const { writer, next } = open();
    const text = 'x'.repeat(ENGINE_LIMITS.bufferedBytesMax / 4);
    const held = writer.append(intent(1));
    const one = await next();
    const lines = Array.from({ length: 6 }, (_, at) => logLine(at + 1, text));
    const rest = Promise.all(lines.map((line) => writer.append(line)));
    one.end();
    await held;
    const sizes: number[] = [];
    for (let left = 6; left > 0; ) {
      const { bodies, end } = await next();
      sizes.push(bodies.length);
      left -= bodies.length;
      end();
    }
    await rest;
    expect(sizes).toEqual([3, 3]);
  });

  test('writes by itself what waited for a while', async () => {
    const { writer, next } = open();
    await writer.buffer(logLine(1));
    await writer.buffer(logLine(2));
    const { bodies, end } = await next();
    expect(bodies).toEqual([logLine(1), logLine(2)]);
    end();
    await writer.flush();
  });

  test('keeps only outcomes of durable intents once it was refused, and says so to everybody', async () => {
    const { writer, record, next } = open();
    const durable = writer.append(intent(1));
    (await next()).end();
    await durable;
    const refused = [writer.append(intent(2))];
    const two = await next();
    await writer.buffer(result(1));
    await writer.buffer(intent(4), result(4));
    refused.push(writer.append(intent(3)));
    two.end(new HyphaError('E_CANCELLED', 'the run was cancelled'));
    for (const each of refused) await expect(each).rejects.toThrow('run fails');
    await expect(writer.append(intent(5))).rejects.toThrow('run fails');
    expect([...record.intents.keys()]).toEqual([1, 4]);

    await writer.turnBack();
    const undo = writer.append({ type: 'undo-intent', step: 1 });
    const { bodies, end } = await next();
    expect(bodies).toEqual([result(1), { type: 'undo-intent', step: 1 }]);
    end();
    await undo;
  });

  test('keeps the start of a run that was refused with what came after it', async () => {
    const { writer, next } = open();
    const started: JournalBody = { type: 'started', runner: 'r', bootId: 'b', abi: '2', nowMs: 0 };
    writer.appendSoon(started);
    const refused = writer.append(intent(1));
    (await next()).end(new HyphaError('E_KEY_REVOKED', 'the key was revoked'));
    await expect(refused).rejects.toThrow('run fails');
    await writer.turnBack();
    const undo = writer.append({ type: 'undo-intent', step: 1 });
    const { bodies, end } = await next();
    expect(bodies).toEqual([started, { type: 'undo-intent', step: 1 }]);
    end();
    await undo;
  });

  test('takes nothing more once the journal is lost', async () => {
    const { writer, next } = open();
    writer.appendSoon(intent(1));
    const later = writer.append(intent(2));
    (await next()).end(new HyphaError('E_STALE_EPOCH', 'another owns the run'));
    await expect(later).rejects.toThrow('engine halts');
    await expect(writer.flush()).rejects.toThrow('engine halts');
    await expect(writer.turnBack()).rejects.toThrow('engine halts');
  });
});
