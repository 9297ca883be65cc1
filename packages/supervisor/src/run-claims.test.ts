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
beforeEach(async () => {
  world = await JournalWorld.open();
  asked = [];
  wakes = [];
  notices = [];
  const files: SecretFiles = {
    provide: async ({ realm, deployment }, refs) => {
      asked.push(`${realm}/${deployment}`);
      return new Map(refs.map(({ version }) => [version, `/run/x/${version}`]));
    },
  };
  claims = new RunClaims({
    journal: world.journal,
    reconciler: world.reconciler,
    secrets: files,
    revocations: { checkMayAppend: () => undefined, reasonOf: () => undefined },
    dispatcher: { wakeAt: (timeMs) => wakes.push(timeMs), kick: () => wakes.push(0) },
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
