import { HyphaError } from '@hypha/protocol';
import type { SecretFiles } from '@hypha/sal';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { RunClaims } from './run-claims.ts';
import {
  admissionOf,
  desiredOf,
  finished,
  intent,
  JournalWorld,
  silentLog,
  started,
} from './testing/journal-world.ts';

const VERSION = 'a'.repeat(32);
const secrets = [{ secret: 'token', version: VERSION }];

let world: JournalWorld;
let claims: RunClaims;
let asked: string[];
let wakes: number[];
let notices: string[];
let held: Set<string>;
let failure: Error | undefined;
beforeEach(async () => {
  world = await JournalWorld.open();
  asked = [];
  wakes = [];
  notices = [];
  held = new Set();
  failure = undefined;
  const files: SecretFiles = {
    provide: async ({ realm, deployment }, refs) => {
      asked.push(`${realm}/${deployment}`);
      return new Map(refs.map(({ version }) => [version, `/run/x/${version}`]));
    },
  };
  claims = new RunClaims({
    journal: world.journal,
    reconciler: {
      makeWay: async (entry) => {
        if (failure !== undefined) throw failure;
        await world.reconciler.makeWay(entry);
      },
      leaveAlone: (rid, run) => world.reconciler.leaveAlone(rid, run),
    },
    secrets: files,
    revocations: { checkMayAppend: () => undefined, reasonOf: () => undefined },
    dispatcher: {
      wakeAt: (timeMs) => wakes.push(timeMs),
      kick: () => wakes.push(0),
      isHeld: (run) => held.has(run),
    },
    notify: (runner, notice) => notices.push(`${runner} ${notice.notice}`),
    bootId: 'boot-1',
    self: () => ({ id: 'node', name: 'n', labels: {}, realms: ['*'] }),
    authority: () => [],
    log: silentLog,
  });
});
afterEach(() => world[Symbol.asyncDispose]());

async function admitted(): Promise<string> {
  const admission = admissionOf();
  const given = { name: 'token', version: VERSION, box: 'box', sealedTo: 'key' };
  await world.journal.admit({ ...admission, secrets: [given] });
  return admission.run;
}

test('a claim tells the names and versions of the secrets the run was given, the same in every epoch', async () => {
  const run = await admitted();
  const first = await claims.claim('r1', { method: 'claim', run, epoch: 1 });
  expect(first.secrets).toEqual({ token: VERSION });
  await world.journal.takeOver(run);
  const second = await claims.claim('r2', { method: 'claim', run, epoch: 2 });
  expect(second.secrets).toEqual(first.secrets);
});

test('nobody gets a run while what it had made is being made again, whatever job names it', async () => {
  const run = await admitted();
  held.add(run);
  const claim = () => claims.claim('r1', { method: 'claim', run, epoch: 1 });
  await expect(claim()).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
  expect(world.journal.findUnfinished(run)).toMatchObject({ holder: null, epoch: 1 });
  held.delete(run);
  expect(await claim()).toMatchObject({ run });
});

test('a claim that cannot be answered is taken back, unless the runner ends over it', async () => {
  const run = await admitted();
  const claim = () => claims.claim('r1', { method: 'claim', run, epoch: 1 });
  failure = new HyphaError('E_UNAVAILABLE', 'the store has too many requests waiting');
  await expect(claim()).rejects.toBe(failure);
  expect(world.journal.findUnfinished(run)).toMatchObject({ holder: null, epoch: 1 });
  failure = new HyphaError('E_INTERNAL', 'no whole chain');
  await expect(claim()).rejects.toBe(failure);
  expect(world.journal.findUnfinished(run)).toMatchObject({ holder: 'r1', epoch: 1 });
});

test('a second claim that cannot be answered takes nothing from who writes to the run', async () => {
  const run = await running();
  failure = new HyphaError('E_UNAVAILABLE', 'the store has too many requests waiting');
  const again = claims.claim('r1', { method: 'claim', run, epoch: 1 });
  await expect(again).rejects.toBe(failure);
  expect(world.journal.findUnfinished(run)).toMatchObject({ holder: 'r1', epoch: 1 });
  await world.fixture.append(run, [intent(1, null)]);
});

test('a claim tells what the deployment has, and what remains of data and of a failed run', async () => {
  const [data, web, kept] = [
    desiredOf('volume', 'data'),
    desiredOf('container', 'web'),
    desiredOf('container', 'kept'),
  ] as const;
  await world.succeed(await world.commit([data, web]));
  await world.succeed(await world.commit([web]));
  const failed = await world.begin([kept], { onFailure: 'keep' });
  await world.fixture.append(failed, [finished('failed', 'E_SCRIPT')]);
  const run = await admitted();
  const claim = await claims.claim('r1', { method: 'claim', run, epoch: 1 });
  expect(claim.committed).toEqual([web]);
  expect(claim.remains).toEqual([data, kept]);
  // What the run itself declares is not of another one.
  await world.fixture.append(run, [started(), intent(1, desiredOf('container', 'own'))]);
  await world.journal.takeOver(run);
  const second = await claims.claim('r2', { method: 'claim', run, epoch: 2 });
  expect(second.remains).toEqual([data, kept]);
});

test('the owner of a run gets files of its own deployment', async () => {
  const run = await admitted();
  await claims.claim('r1', { method: 'claim', run, epoch: 1 });
  const request = { method: 'secrets', run, epoch: 1, secrets } as const;
  expect(await claims.provideSecrets('r1', request)).toEqual({
    files: { [VERSION]: `/run/x/${VERSION}` },
  });
  expect(asked).toEqual(['default/web']);
});

test('nobody else gets a secret: not another runner, not an older epoch, not after the end', async () => {
  const run = await admitted();
  const request = { method: 'secrets', run, epoch: 1, secrets } as const;
  const refused = { code: 'E_STALE_EPOCH' };
  await expect(claims.provideSecrets('r1', request)).rejects.toMatchObject(refused);
  await claims.claim('r1', { method: 'claim', run, epoch: 1 });
  await expect(claims.provideSecrets('r2', request)).rejects.toMatchObject(refused);
  await world.journal.takeOver(run);
  await expect(claims.provideSecrets('r1', request)).rejects.toMatchObject(refused);
  await claims.claim('r2', { method: 'claim', run, epoch: 2 });
  await expect(claims.provideSecrets('r2', request)).rejects.toMatchObject(refused);
  await world.fixture.append(run, [started(), finished('failed')], { runner: 'r2', epoch: 2 });
  const last = { ...request, epoch: 2 };
  await expect(claims.provideSecrets('r2', last)).rejects.toMatchObject(refused);
  expect(asked).toEqual([]);
});

async function running(): Promise<string> {
  const run = await admitted();
  await claims.claim('r1', { method: 'claim', run, epoch: 1 });
  await world.fixture.append(run, [started()]);
  return run;
}

async function cancel(run: string): Promise<void> {
  const { digest: target, realm } = await world.journal.runs.getRun(run);
  const signed = { digest: 'c'.repeat(64), target, realm, keyids: [], mayCancelAny: true };
  await world.journal.cancel({ ...signed, receivedAtMs: 1, forgetAtSeconds: 0 });
}

test('a run that is given back waits for its time, and its runner owns it no longer', async () => {
  const run = await running();
  const park = { method: 'park', run, epoch: 1, after: 2, wakeAtMs: 77 } as const;
  await claims.park('r1', park);
  expect(wakes).toEqual([77]);
  const bodies = [finished('failed')];
  const append = { method: 'append', run, epoch: 1, after: 2, bodies } as const;
  await expect(claims.append('r1', append)).rejects.toMatchObject({
    code: 'E_STALE_EPOCH',
  });
  expect(await world.journal.runs.getRun(run)).toMatchObject({ epoch: 2, wakeAt: 77 });
});

test('a cancelled run that is given back has its turn at once, and its claim says why', async () => {
  const run = await running();
  await cancel(run);
  await claims.park('r1', { method: 'park', run, epoch: 1, after: 2, wakeAtMs: 77 });
  expect(wakes).toEqual([0]);
  const claim = await claims.claim('r2', { method: 'claim', run, epoch: 2 });
  expect(claim.isCancelled).toBe(true);
});

test('a runner that comes back is told what was said of its runs while it was away', async () => {
  const [cancelled, other] = [await running(), await admitted()];
  await cancel(cancelled);
  await claims.reattach('r1', [{ run: cancelled, epoch: 1 }]);
  expect(notices).toEqual(['r1 cancel']);
  await expect(claims.reattach('r1', [{ run: other, epoch: 4 }])).rejects.toMatchObject({
    code: 'E_STALE_EPOCH',
  });
});

test('only the owner of a run reads what another kept', async () => {
  const run = await running();
  const request = { method: 'read-kept', run, epoch: 1, target: run } as const;
  await expect(claims.readKept('r2', request)).rejects.toMatchObject({ code: 'E_STALE_EPOCH' });
  await expect(claims.readKept('r1', request)).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
});
