import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
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
  started,
} from './testing/journal-world.ts';

let world: JournalWorld;
let jobs: RunJob[];
let isUp: boolean;
let dispatcher: Dispatcher;
let resets: RunJob[];
let slots: number;
let replaced: number;
let hopeless: HopelessRuns;
let nowMs: number;
let refused: Set<string>;
beforeEach(async () => {
  world = await JournalWorld.open();
  jobs = [];
  isUp = true;
  resets = [];
  slots = 0;
  replaced = 0;
  nowMs = 1_000_000;
  refused = new Set();
  hopeless = new HopelessRuns({ journal: world.journal, log: silentLog });
  dispatcher = newDispatcher();
});
afterEach(async () => {
  await dispatcher.close();
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
  return new Dispatcher({
    ...{ journal: world.journal, queue, hopeless, log: silentLog },
    slots: () => slots,
    isRefused: (run) => refused.has(run),
    replaceIdle: () => {
      replaced++;
    },
    clock: { nowMs: () => nowMs },
  });
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
    slots = 1;
    expect(await sweepsUntilReset(2 * quiet)).toBe(quiet);
    expect({ resets, jobs }).toEqual({ resets: [{ run, epoch: 1 }], jobs: [{ run, epoch: 1 }] });
    resets = [];
    expect(await sweepsUntilReset(quiet - 1)).toBeUndefined();
  });

  test('is given more time while other runs begin', async () => {
    const stuck = await admit();
    slots = 1;
    let other = 0;
    const others = async () => {
      await world.succeed(await world.commit([], { deployment: `other-${++other}` }));
    };
    expect(await sweepsUntilReset(2 * busy, others)).toBe(busy);
    expect(resets).toEqual([{ run: stuck, epoch: 1 }]);
  });

  test('is blamed first, and runners without a run are replaced when that changes nothing', async () => {
    const run = await admit();
    slots = 1;
    for (let reset = 1; reset <= LIMITS.resetsMax; reset++) {
      resets = [];
      await sweepsUntilReset(quiet);
      expect({ resets, replaced }).toEqual({ resets: [{ run, epoch: 1 }], replaced: 0 });
    }
    resets = [];
    await sweepsUntilReset(quiet);
    expect(replaced).toBe(1);
  });
});

describe('a run that waits', () => {
  const HOUR_MS = 3_600_000;
  const FREE = { resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 0 } };
  async function park(change = {}, forMs = HOUR_MS): Promise<string> {
    const run = await world.begin([], change);
    const author = { by: 'runner' as const, runner: 'r1', epoch: 1, after: 2 };
    await world.journal.park(run, author, nowMs + forMs);
    return run;
  }

  test('has no job before its time, and one then', async () => {
    const run = await park();
    expect(await pass()).toEqual([]);
    nowMs += HOUR_MS - 1;
    expect(await pass()).toEqual([]);
    nowMs += 1;
    expect(await pass()).toEqual([`${run} 2`]);
    expect(await pass()).toEqual([]);
  });

  test('gets its job at its time without being asked, however long others wait', async () => {
    await park({ deployment: 'later' }, HOUR_MS);
    const sooner = await park({ deployment: 'sooner' }, 20);
    await pass();
    nowMs += 20;
    await vi.waitFor(() => expect(jobs).toEqual([{ run: sooner, epoch: 2 }]));
  });

  test('is still waiting after a restart of this process', async () => {
    const run = await park();
    await world.restart();
    await dispatcher.close();
    dispatcher = newDispatcher();
    expect(await pass()).toEqual([]);
    nowMs += HOUR_MS;
    expect(await pass()).toEqual([`${run} 2`]);
  });

  test('is cancelled at once, and one that has begun is handed to a runner to be undone', async () => {
    const run = await park();
    expect(await pass()).toEqual([]);
    const { digest, realm } = await world.journal.runs.getRun(run);
    const signed = {
      digest: 'c'.repeat(64),
      target: digest,
      realm,
      keyids: [],
      mayCancelAny: true,
    };
    await world.journal.cancel({ ...signed, receivedAtMs: nowMs, forgetAtSeconds: 0 });
    expect(await pass()).toEqual([`${run} 2`]);
  });

  test('waits no longer once its key is taken back: it has to be undone', async () => {
    const run = await park();
    expect(await pass()).toEqual([]);
    refused.add(run);
    expect(await pass()).toEqual([`${run} 2`]);
  });

  test('waits as one of thousands without a timer of its own', async () => {
    for (let count = 1; count <= 50; count++) {
      await park({ deployment: `d-${count}`, limits: FREE });
    }
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout');
    const before = timers().length;
    await pass();
    expect(timers().length - before).toBeLessThanOrEqual(1);
    nowMs += HOUR_MS;
    expect(await pass()).toHaveLength(50);
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

test('plans and tasks are not replaced by a newer generation, and replace none', async () => {
  const running = await world.begin([]);
  const task = await admit({ mode: 'task' });
  const apply = await admit();
  const plan = await admit({ mode: 'plan' });
  await pass();
  for (const run of [running, task, apply, plan]) {
    expect((await world.journal.runs.getRun(run)).endedAt).toBeNull();
  }
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

function newTakeover(bootId = 'boot-2'): RunTakeover {
  return new RunTakeover({
    journal: world.journal,
    dispatcher,
    reconciler: world.reconciler,
    hopeless,
    bootId,
    log: silentLog,
  });
}

test('runs of a dead runner get the next epoch and a job at once', async () => {
  const run = await world.begin([]);
  await newTakeover().takeOverFrom('r1');
  await dispatcher.idle();
  expect(jobs).toEqual([{ run, epoch: 2 }]);
});

test('a claim that is through only after its runner was buried is taken over by the next sweep', async () => {
  const [buried, living] = [await admit({ deployment: 'a' }), await admit({ deployment: 'b' })];
  await world.restart();
  dispatcher = newDispatcher();
  const takeover = newTakeover();
  // The journal of the run has to be read first.
  const claimed = world.journal.claim(buried, { runner: 'r1', epoch: 1, bootId: 'boot-1' });
  await takeover.takeOverFrom('r1');
  await claimed;
  await world.journal.claim(living, { runner: 'r2', epoch: 1, bootId: 'boot-1' });
  await dispatcher.idle();
  jobs = [];
  await takeover.sweep(new Set(['r2']));
  await dispatcher.idle();
  expect(jobs).toEqual([{ run: buried, epoch: 2 }]);
  expect(world.journal.findUnfinished(living)).toMatchObject({ holder: 'r2', epoch: 1 });
  expect(takeover.takeovers).toBe(1);
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

test('after a halt in the same boot a run gets back what it had made, and none that is at work', async () => {
  const run = await world.begin([desiredOf('container', 'web')]);
  await world.restart();
  dispatcher = newDispatcher();
  await newTakeover('boot-1').recover(new Set(['r1']));
  expect(await pass()).toEqual([]);
  expect(world.sals.effects()).toEqual([]);
  await newTakeover('boot-1').recover(new Set());
  await vi.waitFor(() => expect(jobs).toEqual([{ run, epoch: 2 }]));
  expect(world.sals.effects()).toEqual(['repair web']);
});

test('after a reboot a run that waits is restored at once and gets its job at its time', async () => {
  const made = [desiredOf('volume', 'data'), desiredOf('container', 'web')];
  const run = await world.begin(made);
  const author = { by: 'runner' as const, runner: 'r1', epoch: 1, after: 6 };
  await world.journal.park(run, author, nowMs + 1_000);
  await world.restart();
  await dispatcher.close();
  dispatcher = newDispatcher();
  await newTakeover().recover(new Set());
  await vi.waitFor(() => expect(world.sals.effects()).toEqual(['repair data', 'repair web']));
  expect(await pass()).toEqual([]);
  nowMs += 1_000;
  await vi.waitFor(async () => expect(await pass()).toEqual([`${run} 2`]));
});

test('runs under which runners die come one at a time, and none is blamed for another', async () => {
  const innocent = await admit({ deployment: 'innocent' });
  const fatal = await admit({ deployment: 'fatal' });
  /** One runner claims all there is, and dies unless it has nothing but the innocent one. */
  const serve = async () => {
    jobs = [];
    dispatcher.refill();
    await dispatcher.idle();
    const claimed = [...jobs];
    for (const { run, epoch } of claimed) {
      await world.journal.claim(run, { runner: 'r1', epoch, bootId: 'boot-1' });
    }
    const [{ run, epoch } = { run: '', epoch: 0 }] = claimed;
    if (claimed.length > 1 || run === fatal) await newTakeover().takeOverFrom('r1');
    else
      await world.fixture.append(run, [started(), finished('failed', 'E_SCRIPT')], {
        runner: 'r1',
        epoch,
      });
    return claimed.map((job) => (job.run === fatal ? 'fatal' : 'innocent'));
  };
  const served: string[][] = [];
  while (world.journal.findUnfinished(fatal) !== undefined) served.push(await serve());
  const together = ['innocent', 'fatal'];
  expect(served.slice(0, LIMITS.suspectEpochs)).toEqual([together, together, together]);
  expect(served.slice(LIMITS.suspectEpochs)).toEqual([
    ['innocent'],
    ...Array.from({ length: LIMITS.fruitlessEpochsMax - LIMITS.suspectEpochs }, () => ['fatal']),
  ]);
  expect((await world.journal.runs.getRun(innocent)).problem?.code).toBe('E_SCRIPT');
  expect((await world.journal.runs.getRun(fatal)).problem?.code).toBe('E_INTERNAL');
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
