import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Dispatcher } from './dispatcher.ts';
import { HopelessRuns } from './hopeless-runs.ts';
import type { RunJob } from './run-queue.ts';
import { RunTakeover } from './run-takeover.ts';
import { LIMITS } from './supervisor-limits.ts';
import {
  admissionOf,
  desiredOf,
  finished,
  JournalWorld,
  silentLog,
} from './testing/journal-world.ts';

let world: JournalWorld;
let jobs: RunJob[];
let isUp: boolean;
let dispatcher: Dispatcher;
let resets: RunJob[];
let runners: number;
beforeEach(async () => {
  world = await JournalWorld.open();
  jobs = [];
  isUp = true;
  resets = [];
  runners = 0;
  dispatcher = newDispatcher();
});
afterEach(async () => {
  await world[Symbol.asyncDispose]();
});

function newDispatcher(): Dispatcher {
  const add = async (added: readonly RunJob[]) => {
    if (isUp) jobs.push(...added);
    return isUp;
  };
  const reset = async (jobsOf: readonly RunJob[]) => {
    resets.push(...jobsOf);
  };
  const queue = { add, reset };
  return new Dispatcher({ journal: world.journal, queue, runners: () => runners, log: silentLog });
}

async function pass(): Promise<string[]> {
  jobs = [];
  dispatcher.kick();
  await dispatcher.idle();
  return jobs.map(({ run, epoch }) => `${run} ${epoch}`);
}

async function admit(change = {}): Promise<string> {
  const admission = admissionOf(change);
  await world.journal.admit(admission);
  return admission.run;
}

test('a job is given once, and again only when the queue may have lost it', async () => {
  const run = await admit();
  expect(await pass()).toEqual([`${run} 1`]);
  expect(await pass()).toEqual([]);
  dispatcher.refill();
  await dispatcher.idle();
  expect(jobs).toEqual([{ run, epoch: 1 }]);
});

describe('a queue that does not hand out a job', () => {
  const quiet = LIMITS.doubtMax / LIMITS.doubtQuiet;
  const busy = LIMITS.doubtMax / LIMITS.doubtBusy;

  /** Sweeps so often, until the queue is emptied; answers at which that was. */
  async function sweepsUntilReset(max: number, between: () => Promise<void> = async () => {}) {
    for (let sweep = 1; sweep <= max; sweep++) {
      await between();
      jobs = [];
      dispatcher.refill();
      await dispatcher.idle();
      if (resets.length > 0) return sweep;
    }
    return undefined;
  }

  test('is left alone while every runner works', async () => {
    await admit();
    expect(await sweepsUntilReset(2 * busy)).toBeUndefined();
  });

  test('is emptied while a runner is idle, and filled again', async () => {
    const run = await admit();
    runners = 1;
    expect(await sweepsUntilReset(2 * quiet)).toBe(quiet);
    expect({ resets, jobs }).toEqual({ resets: [{ run, epoch: 1 }], jobs: [{ run, epoch: 1 }] });
    resets = [];
    expect(await sweepsUntilReset(quiet - 1)).toBeUndefined();
  });

  test('is given more time while other runs begin', async () => {
    const stuck = await admit();
    runners = 1;
    let other = 0;
    const others = async () => {
      await world.succeed(await world.commit([], { deployment: `other-${++other}` }));
    };
    expect(await sweepsUntilReset(2 * busy, others)).toBe(busy);
    expect(resets).toEqual([{ run: stuck, epoch: 1 }]);
  });
});

test('a queue that is away gets the job when it is back', async () => {
  isUp = false;
  const run = await admit();
  expect(await pass()).toEqual([]);
  isUp = true;
  expect(await pass()).toEqual([`${run} 1`]);
});

test('only the oldest run of a deployment has a job', async () => {
  const first = await world.begin([]);
  const second = await admit();
  const other = await admit({ deployment: 'other' });
  expect(await pass()).toEqual([`${other} 1`]);
  await world.fixture.append(first, [finished('failed', 'E_SCRIPT')]);
  expect(await pass()).toEqual([`${second} 1`]);
});

test('runs that wait behind a newer one are cancelled with a receipt, one that began is not', async () => {
  const running = await world.begin([]);
  const waiting = [await admit(), await admit()];
  const newest = await admit();
  await pass();
  for (const run of waiting) {
    expect(await world.journal.runs.getRun(run)).toMatchObject({
      state: 'cancelled',
      problem: { code: 'E_SUPERSEDED' },
    });
    expect(await world.journal.runs.findReceipt(run)).toBeDefined();
  }
  expect((await world.journal.runs.getRun(running)).state).toBe('running');
  expect((await world.journal.runs.getRun(newest)).state).toBe('accepted');
});

test('a run that is held has no job until it is let go', async () => {
  const run = await admit();
  dispatcher.hold(run);
  expect(await pass()).toEqual([]);
  jobs = [];
  dispatcher.letGo(run);
  await dispatcher.idle();
  expect(jobs).toEqual([{ run, epoch: 1 }]);
});

function newTakeover(): RunTakeover {
  return new RunTakeover({
    journal: world.journal,
    dispatcher,
    reconciler: world.reconciler,
    hopeless: new HopelessRuns({ journal: world.journal, log: silentLog }),
    bootId: 'boot-2',
    log: silentLog,
  });
}

test('runs of a dead runner get the next epoch and a job at once', async () => {
  const run = await world.begin([]);
  await newTakeover().takeOverFrom('r1');
  await dispatcher.idle();
  expect(jobs).toEqual([{ run, epoch: 2 }]);
});

test('after a reboot a run gets its job once what it had made is there again', async () => {
  const run = await world.begin([desiredOf('container', 'web')]);
  await world.restart();
  dispatcher = newDispatcher();
  await newTakeover().recover(new Set());
  while (jobs.length === 0) await new Promise((resolve) => setImmediate(resolve));
  expect(jobs).toEqual([{ run, epoch: 2 }]);
  expect(world.sals.effects()).toEqual(['repair web']);
});

test('a run under which every runner dies ends, and what it made is handed on', async () => {
  const web = desiredOf('container', 'web');
  const run = await world.begin([web]);
  const takeover = newTakeover();
  for (let epoch = 1; epoch <= LIMITS.fruitlessEpochsMax; epoch++) {
    if (epoch > 1) await world.journal.claim(run, { runner: 'r1', epoch, bootId: 'boot-1' });
    await takeover.takeOverFrom('r1');
  }
  expect(await world.journal.runs.getRun(run)).toMatchObject({
    state: 'failed',
    problem: { code: 'E_INTERNAL' },
  });
  expect(world.journal.records.listRecords()).toMatchObject([{ name: 'web', status: 'removing' }]);
});
