import type { DesiredResource } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import type { Admission } from './run-admission.ts';
import type { GivenSecret } from './secret-book.ts';
import {
  acceptedOf,
  admissionOf,
  committed,
  desiredOf,
  finished,
  intent,
  journalOfEachTest,
  OWNER,
  result,
  started,
} from './testing/journal-fixture.ts';

const WEB = { realm: 'default', deployment: 'web' };
const version = (letter: string) => letter.repeat(32);

const fixture = journalOfEachTest();

function given(letter: string, name = 'token'): GivenSecret {
  return { name, version: version(letter), box: `box-${letter}`, sealedTo: 'key-1' };
}

const kept: GivenSecret = { name: 'token', version: 'kept' };

function admit(...secrets: GivenSecret[]): Promise<{ run: string }> {
  return admitAs(admissionOf(), secrets);
}

async function admitAs(admission: Admission, secrets: readonly GivenSecret[]) {
  await fixture.journal.admit({ ...admission, secrets });
  return { run: admission.run };
}

/** A container whose record names the value. */
function using(letter: string): DesiredResource {
  const spec = { files: { '/t': { secret: 'token', version: version(letter) } } };
  return { ...desiredOf('container', 'web'), spec };
}

async function claim(run: string): Promise<void> {
  await fixture.journal.claim(run, OWNER);
  await fixture.append(run, [started()]);
}

async function succeed(run: string, ...desired: DesiredResource[]): Promise<void> {
  await claim(run);
  const steps = desired.flatMap((each, at) => [intent(at + 1, each), result(at + 1)]);
  await fixture.append(run, [...steps, committed(...desired)]);
  await fixture.succeed(run);
}

async function fail(run: string): Promise<void> {
  await claim(run);
  await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
}

async function versions(): Promise<string[]> {
  await fixture.journal.secrets.collect();
  const entries = await fixture.journal.secrets.list();
  return entries.map(({ version: text }) => text[0] ?? '').toSorted();
}

describe('secrets in the journal', () => {
  test('are with their run, in the same write, and there after a restart', async () => {
    const { run } = await admit(given('a'), given('b', 'other'));
    await fixture.reopen();
    const { secrets } = fixture.journal;
    expect(await secrets.readGiven(run)).toEqual({ token: version('a'), other: version('b') });
    const entry = await secrets.find(WEB, { secret: 'token', version: version('a') });
    expect(entry).toMatchObject({ box: 'box-a', sealedTo: 'key-1', createdAt: fixture.nowMs });
  });

  test('are not in what the journal says of a run', async () => {
    const admission = admissionOf();
    const { run } = await admitAs(admission, [given('a')]);
    const [event] = await fixture.journal.runs.readAllEvents(run);
    expect(event?.body).toEqual(acceptedOf(admission));
  });

  test('of a deployment are nothing to another', async () => {
    await admit(given('a'));
    const asked = { secret: 'token', version: version('a') };
    const { secrets } = fixture.journal;
    expect(await secrets.find({ ...WEB, deployment: 'api' }, asked)).toBeUndefined();
    expect(await secrets.find({ ...WEB, realm: 'lab' }, asked)).toBeUndefined();
    const other = admissionOf({ deployment: 'api' });
    await expect(admitAs(other, [kept])).rejects.toMatchObject({ code: 'E_SECRET' });
  });

  test('given again keep when they were first had', async () => {
    await admit(given('a'));
    fixture.nowMs += 5000;
    await admit({ ...given('a'), box: 'another box' } as GivenSecret);
    const [entry, ...more] = await fixture.journal.secrets.list();
    expect(more).toEqual([]);
    expect(entry?.createdAt).toBe(fixture.nowMs - 5000);
  });

  test('of the last revision outlive the plans and tasks that come after it', async () => {
    await succeed((await admit(given('a'))).run);
    const { run: task } = await admitAs(admissionOf({ mode: 'task' }), [given('b')]);
    await succeed(task);
    expect(await versions()).toEqual(['a']);
    const { run } = await admit(kept);
    expect(await fixture.journal.secrets.readGiven(run)).toEqual({ token: version('a') });
  });

  test('to be kept are those of the newest run that did not fail', async () => {
    await succeed((await admit(given('a'))).run);
    await fail((await admit(given('b'))).run);
    const { run } = await admit(kept);
    expect(await fixture.journal.secrets.readGiven(run)).toEqual({ token: version('a') });
  });

  test('to be kept are those of a run that still waits', async () => {
    await succeed((await admit(given('a'))).run);
    await admit(given('b'));
    const { run } = await admit(kept);
    expect(await fixture.journal.secrets.readGiven(run)).toEqual({ token: version('b') });
  });

  test('that nobody has cannot be kept, and the run is not accepted', async () => {
    const admission = admissionOf();
    await expect(admitAs(admission, [kept])).rejects.toMatchObject({
      code: 'E_SECRET',
      hint: expect.stringContaining('--secret token='),
    });
    expect(await fixture.journal.runs.findRun(admission.run)).toBeUndefined();
    // The number of a refused run can be used again.
    await admitAs(admission, [given('a')]);
  });

  test('are kept while a run is to use them, then only the newest', async () => {
    const first = await admit(given('a'));
    const second = await admit(given('b'));
    expect(await versions()).toEqual(['a', 'b']);
    await succeed(first.run);
    expect(await versions()).toEqual(['a', 'b']);
    await succeed(second.run);
    expect(await versions()).toEqual(['b']);
  });

  test('of a failed run go with it, those of the record stay', async () => {
    await succeed((await admit(given('a'))).run, using('a'));
    const { run } = await admit(given('b'));
    await claim(run);
    await fixture.append(run, [intent(1, using('b')), result(1)]);
    expect(await versions()).toEqual(['a', 'b']);
    await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
    expect(await versions()).toEqual(['a']);
  });

  test('of a destroyed deployment are gone once its resources are', async () => {
    await succeed((await admit(given('a'))).run, using('a'));
    await succeed((await admitAs(admissionOf({ mode: 'destroy' }), [])).run);
    expect(await versions()).toEqual(['a']);
    for (const record of fixture.journal.records.listRecords()) {
      await fixture.journal.records.dropRecord(record);
    }
    expect(await versions()).toEqual([]);
  });

  test('are known to a record when their run is long gone', async () => {
    const { run } = await admit(given('a'));
    await succeed(run, using('a'));
    const { sweeper } = fixture.journal;
    fixture.nowMs += 10_000;
    const { seq } = await fixture.journal.runs.getRun(run);
    await fixture.journal.cursors.confirm([{ run, told: seq + 1 }]);
    expect(await sweeper.dropRuns(fixture.nowMs, Number.MAX_SAFE_INTEGER)).toBe(1);
    expect(await fixture.journal.secrets.readGiven(run)).toEqual({});
    expect(await versions()).toEqual(['a']);
    const later = await admit(kept);
    expect(await fixture.journal.secrets.readGiven(later.run)).toEqual({ token: version('a') });
  });

  test('change their box and nothing else when they are sealed again', async () => {
    await admit(given('a'), given('b', 'other'));
    const { secrets } = fixture.journal;
    const before = await secrets.listSealedElsewhere('key-2', 10);
    expect(before.map(({ box }) => box).toSorted()).toEqual(['box-a', 'box-b']);
    await secrets.reseal(
      before.map((each) => ({ ...each, box: `new-${each.box}`, sealedTo: 'key-2' })),
    );
    expect(await secrets.listSealedElsewhere('key-2', 10)).toEqual([]);
    const [entry] = before;
    const asked = { secret: entry?.name ?? '', version: entry?.version ?? '' };
    expect(await secrets.find(WEB, asked)).toEqual({
      ...entry,
      box: `new-${entry?.box}`,
      sealedTo: 'key-2',
    });
  });
});
