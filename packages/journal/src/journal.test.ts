import {
  firstBrokenEvent,
  type JournalBody,
  type JournalEvent,
  type ReceiptPayload,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { expect, test } from 'vitest';
import {
  admissionOf,
  CAPACITY,
  committed,
  desiredOf,
  finished,
  intent,
  journalOfEachTest,
  NOW_SECONDS,
  OWNER,
  refusal,
  result,
  started,
} from './testing/journal-fixture.ts';

const fixture = journalOfEachTest();

const SMALL = { resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 0 } };
const supervisor = { by: 'supervisor' } as const;

test('the same digest is the same run, also at once and after a restart', async () => {
  const admission = admissionOf();
  const answers = await Promise.all([1, 2, 3].map(() => fixture.journal.admit(admission)));
  expect(answers.filter(({ existing }) => !existing)).toHaveLength(1);
  await fixture.reopen();
  const again = await fixture.journal.admit(admission);
  expect(again).toMatchObject({ existing: true, entry: { run: admission.run, state: 'accepted' } });
});

test('a used id or nonce is a replay, at once and after a restart', async () => {
  const first = admissionOf();
  await fixture.journal.admit(first);
  const { id, nonce } = first.payload;
  await fixture.reopen();
  await expect(fixture.journal.admit(admissionOf({ id }))).rejects.toThrow(refusal('E_REPLAY'));
  await expect(fixture.journal.admit(admissionOf({ nonce }))).rejects.toThrow(refusal('E_REPLAY'));
  const twins = [admissionOf({ deployment: 'a' }), admissionOf({ deployment: 'b' })].map(
    (twin) => ({
      ...twin,
      payload: { ...twin.payload, id: 'rev_00000000-0000-7000-8000-ffffffffffff' },
    }),
  );
  const outcomes = await Promise.allSettled(twins.map((twin) => fixture.journal.admit(twin)));
  expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
});

test('a nonce of another key is not a replay', async () => {
  const first = admissionOf();
  await fixture.journal.admit(first);
  const other = { ...admissionOf({ nonce: first.payload.nonce }), keyids: ['ed25519:other'] };
  await expect(fixture.journal.admit(other)).resolves.toMatchObject({ existing: false });
});

test('a new journal refuses what was signed before it began', async () => {
  const early = admissionOf({ iat: NOW_SECONDS - 1 });
  await expect(fixture.journal.admit(early)).rejects.toThrow(refusal('E_REPLAY'));
});

test('replay memory is dropped only after its time', async () => {
  const first = admissionOf();
  await fixture.journal.admit(first);
  const { id } = first.payload;
  await fixture.journal.horizon.forget(first.payload.exp + 600);
  await expect(fixture.journal.admit(admissionOf({ id }))).rejects.toThrow(refusal('E_REPLAY'));
  await fixture.journal.horizon.forget(first.payload.exp + 601);
  const later = admissionOf({ id, exp: first.payload.exp + 10 });
  await expect(fixture.journal.admit(later)).resolves.toBeDefined();
});

test('what was forgotten stays refused, also when the clock goes back and the journal is opened again', async () => {
  const first = admissionOf();
  await fixture.journal.admit(first);
  await fixture.journal.horizon.forget(first.payload.exp + 601);
  await fixture.journal.horizon.forget(0);
  await fixture.reopen();
  const { id } = first.payload;
  await expect(fixture.journal.admit(admissionOf({ id }))).rejects.toThrow(refusal('E_EXPIRED'));
});

test('a journal that began under a wrong clock refuses what was signed before it began in truth', async () => {
  const hourMs = 3_600_000;
  await fixture.journal.horizon.date(fixture.nowMs + hourMs);
  await fixture.reopen();
  const early = admissionOf({ iat: NOW_SECONDS + 1800 });
  await expect(fixture.journal.admit(early)).rejects.toThrow(refusal('E_REPLAY'));
  const late = admissionOf({ iat: NOW_SECONDS + 3600 });
  await expect(fixture.journal.admit(late)).resolves.toBeDefined();
  // Only the first clock that can be trusted dates it.
  await fixture.journal.horizon.date(fixture.nowMs + 10 * hourMs);
  const next = admissionOf({ iat: NOW_SECONDS + 3601 });
  await expect(fixture.journal.admit(next)).resolves.toBeDefined();
});

test('a journal that began under a clock that was ahead does not refuse work until then', async () => {
  await fixture.journal.horizon.date(fixture.nowMs - 365 * 86_400_000);
  await expect(
    fixture.journal.admit(admissionOf({ iat: NOW_SECONDS - 86_400 })),
  ).resolves.toBeDefined();
});

test('clocks that agree leave the beginning of a journal as it is', async () => {
  await fixture.journal.horizon.date(fixture.nowMs + 50_000);
  await expect(fixture.journal.admit(admissionOf({ iat: NOW_SECONDS }))).resolves.toBeDefined();
});

test('generations of a deployment only grow, also past a destroy', async () => {
  await fixture.journal.admit(admissionOf({ generation: 5 }));
  await fixture.journal.admit(admissionOf({ generation: 7, mode: 'destroy' }));
  await fixture.reopen();
  const admit = (generation: number) => fixture.journal.admit(admissionOf({ generation }));
  await expect(admit(6)).rejects.toThrow(refusal('E_SUPERSEDED'));
  await expect(admit(7)).rejects.toThrow(refusal('E_CONFLICT'));
  await expect(admit(9)).resolves.toBeDefined();
});

test('two generations at once leave the higher as the mark', async () => {
  const pair = [admissionOf({ generation: 21 }), admissionOf({ generation: 20 })];
  await Promise.allSettled(pair.map((each) => fixture.journal.admit(each)));
  const late = admissionOf({ generation: 21 });
  await expect(fixture.journal.admit(late)).rejects.toThrow(refusal('E_CONFLICT'));
});

test('reservations of all deployments together stay within the capacity', async () => {
  const { memoryBytes } = CAPACITY;
  const limits = (share: number) => ({
    resources: { milliCpus: 1, memoryBytes: memoryBytes * share, storageBytes: 1 },
  });
  const admit = (deployment: string, share: number) =>
    fixture.journal.admit(admissionOf({ deployment, limits: limits(share) }));
  await admit('a', 0.75);
  await expect(admit('b', 0.5)).rejects.toThrow(refusal('E_CAPACITY'));
  await expect(admit('b', 0.25)).resolves.toBeDefined();
  // The next revision of `a` replaces its reservation instead of adding to it.
  await expect(admit('a', 0.75)).resolves.toBeDefined();
  await fixture.reopen();
  await expect(admit('c', 0.25)).rejects.toThrow(refusal('E_CAPACITY'));
});

test('a refused admission reserves nothing', async () => {
  const used = admissionOf();
  await fixture.journal.admit(used);
  const before = fixture.journal.reserved();
  const replay = admissionOf({ deployment: 'other', id: used.payload.id });
  await expect(fixture.journal.admit(replay)).rejects.toThrow(refusal('E_REPLAY'));
  expect(fixture.journal.reserved()).toEqual(before);
});

test('a commit shrinks the reservation to actual use', async () => {
  const { run } = await fixture.start();
  const web = desiredOf('container', 'web');
  await fixture.append(run, [intent(1, web), result(1), committed(web)]);
  const used = { milliCpus: 500, memoryBytes: 128 * 1024 * 1024, storageBytes: 0 };
  expect(fixture.journal.reserved()).toEqual(used);
  await fixture.succeed(run);
  await fixture.reopen();
  expect(fixture.journal.reserved()).toEqual(used);
});

test('a failed run gives its reservation back', async () => {
  const { run } = await fixture.start();
  await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  expect(fixture.journal.reserved()).toEqual({ milliCpus: 0, memoryBytes: 0, storageBytes: 0 });
});

test('only the owner of the newest epoch may append', async () => {
  const { run } = await fixture.start();
  const { journal } = fixture;
  const append = (body: JournalBody, as?: { runner: string; epoch: number }) =>
    fixture.append(run, [body], as);
  const stale = refusal('E_STALE_EPOCH');
  await expect(append(intent(1, null), { runner: 'r2', epoch: 1 })).rejects.toThrow(stale);
  await expect(journal.claim(run, { ...OWNER, runner: 'r2' })).rejects.toThrow(stale);
  expect(await journal.takeOver(run)).toMatchObject({ epoch: 2, holder: null });
  await expect(append(intent(1, null))).rejects.toThrow(stale);
  await expect(journal.claim(run, OWNER)).rejects.toThrow(stale);
  const second = { runner: 'r2', epoch: 2 };
  await journal.claim(run, { ...second, bootId: 'boot-1' });
  await append(intent(1, null), second);
  await fixture.reopen();
  await expect(append(result(1))).rejects.toThrow(stale);
  await append(result(1), second);
});

test('an append whose answer was lost is not appended twice', async () => {
  const { run } = await fixture.start();
  const author = { by: 'runner', runner: 'r1', epoch: 1, after: 2 } as const;
  const bodies = [intent(1, null), result(1)];
  const first = await fixture.journal.append(run, author, bodies);
  await fixture.reopen();
  expect(await fixture.journal.append(run, author, bodies)).toEqual(first);
  await expect(fixture.journal.append(run, author, [intent(2, null)])).rejects.toThrow(
    refusal('E_STALE_EPOCH'),
  );
  const end = { ...author, after: 4 };
  const [last] = await fixture.journal.append(run, end, [finished('failed', 'E_SCRIPT')]);
  await fixture.reopen();
  await fixture.journal.reattach(run, OWNER);
  expect(await fixture.journal.append(run, end, [finished('failed', 'E_SCRIPT')])).toEqual([last]);
  expect(await fixture.journal.runs.listReceipts(0, 9)).toHaveLength(1);
});

test('a runner that comes back keeps what it holds, unless it was given to another', async () => {
  const { run } = await fixture.start();
  await fixture.reopen();
  await expect(fixture.journal.reattach(run, OWNER)).resolves.toMatchObject({ holder: 'r1' });
  await fixture.journal.takeOver(run);
  await expect(fixture.journal.reattach(run, OWNER)).rejects.toThrow(refusal('E_STALE_EPOCH'));
});

test('a claim without any event is not remembered by a new process', async () => {
  const admission = admissionOf();
  await fixture.journal.admit(admission);
  await fixture.journal.claim(admission.run, OWNER);
  await fixture.reopen();
  const other = { ...OWNER, runner: 'r2' };
  await expect(fixture.journal.claim(admission.run, other)).resolves.toMatchObject({
    holder: 'r2',
  });
});

test('a claim that is taken back leaves the epoch to anybody, unless something was written', async () => {
  const admission = admissionOf();
  const { run } = admission;
  const { journal } = fixture;
  await journal.admit(admission);
  await journal.claim(run, OWNER);
  const other = { ...OWNER, runner: 'r2' };
  await journal.unclaim(run, other);
  expect(journal.findUnfinished(run)).toMatchObject({ holder: 'r1' });
  await journal.unclaim(run, OWNER);
  expect(journal.findUnfinished(run)).toMatchObject({ holder: null, epoch: 1 });
  await expect(fixture.append(run, [started()])).rejects.toThrow(refusal('E_STALE_EPOCH'));
  await journal.claim(run, other);
  await fixture.append(run, [started()], other);
  // Asked again for what it has.
  await journal.claim(run, other);
  await journal.unclaim(run, other);
  await fixture.append(run, [intent(1, null)], other);
});

test('a run is taken over from the one that is named, and from no other', async () => {
  const { run } = await fixture.start();
  expect(await fixture.journal.takeOver(run, 'r2')).toMatchObject({ holder: 'r1', epoch: 1 });
  expect(await fixture.journal.takeOver(run, 'r1')).toMatchObject({ holder: null, epoch: 2 });
  expect(await fixture.journal.takeOver(run, 'r1')).toMatchObject({ holder: null, epoch: 2 });
});

test('a refused append leaves no trace and the owner goes on', async () => {
  const admission = admissionOf();
  await fixture.journal.admit(admission);
  await fixture.journal.claim(admission.run, OWNER);
  const bad = [started(), intent(1, null), intent(1, null)];
  await expect(fixture.append(admission.run, bad)).rejects.toThrow(refusal('E_CONFLICT'));
  const events = await fixture.append(admission.run, [started(), intent(1, null)]);
  expect(events.map(({ seq }) => seq)).toEqual([2, 3]);
});

test('appends at once are kept in the order asked', async () => {
  const { run } = await fixture.start();
  const steps = Array.from({ length: 50 }, (_, index) => index + 1);
  await Promise.all(
    steps.map((step) =>
      fixture.journal.append(run, supervisor, [intent(step, null), result(step)]),
    ),
  );
  await fixture.reopen();
  const events = await fixture.journal.runs.readAllEvents(run);
  expect(events).toHaveLength(102);
  expect(firstBrokenEvent(nodeVerifier, events)).toBeNull();
});

test('runs of one deployment take turns', async () => {
  const first = await fixture.start();
  const second = admissionOf();
  await fixture.journal.admit(second);
  await expect(fixture.journal.claim(second.run, OWNER)).rejects.toThrow(refusal('E_STALE_EPOCH'));
  expect(fixture.journal.listLanes()).toMatchObject([
    { deployment: 'web', runs: [{ run: first.run }, { run: second.run }] },
  ]);
  await fixture.append(first.run, [finished('failed', 'E_SCRIPT')]);
  await expect(fixture.journal.claim(second.run, OWNER)).resolves.toBeDefined();
});

test('receipts of runs that end at once form one chain', async () => {
  const runs: string[] = [];
  for (const deployment of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']) {
    const limits = { resources: { milliCpus: 1, memoryBytes: 1, storageBytes: 1 } };
    runs.push((await fixture.start({ deployment, limits })).run);
  }
  await Promise.all(
    runs.map((run, index) =>
      index % 2 === 0
        ? fixture.append(run, [finished('failed', 'E_SCRIPT')])
        : // Refused: it makes the chain in memory worthless while the others are on their way.
          fixture
            .append(run, [finished('failed'), finished('failed')])
            .catch(() => fixture.append(run, [finished('failed', 'E_SCRIPT')])),
    ),
  );
  const receipts = await fixture.journal.runs.listReceipts(0, 100);
  const payloads: ReceiptPayload[] = receipts.map(({ envelope }) =>
    JSON.parse(Buffer.from(envelope.payload, 'base64').toString()),
  );
  expect(payloads.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  expect(payloads[0]?.prev).toBeNull();
  expect(new Set(payloads.map(({ prev }) => prev)).size).toBe(8);
});

test('a receipt says what the journal says', async () => {
  const { run, digest } = await fixture.start();
  const web = desiredOf('container', 'web');
  await fixture.append(run, [intent(1, web), result(1), committed(web)]);
  const last = await fixture.succeed(run);
  expect(await fixture.receiptOf(run)).toMatchObject({
    run,
    envelopeDigest: digest,
    state: 'succeeded',
    steps: 1,
    journalHead: last?.hash,
    outputSha256: committed().outputSha256,
    authoritySeq: 3,
    seq: 1,
  });
});

test('listeners hear of what is durable, in order', async () => {
  const heard: JournalEvent[] = [];
  fixture.journal.subscribe((_entry, events) => heard.push(...events));
  const { run } = await fixture.start();
  await fixture.append(run, [intent(1, null), result(1)]);
  expect(heard.map(({ body }) => body.type)).toEqual([
    'accepted',
    'started',
    'step-intent',
    'step-result',
  ]);
});

test('appends that are refused leave the receipts alone that are signed meanwhile', async () => {
  const ending = await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      fixture.start({ deployment: `ending-${index}`, limits: SMALL }),
    ),
  );
  const refused = await fixture.start({ deployment: 'refused', limits: SMALL });
  const { seq: after } = await fixture.journal.runs.getRun(refused.run);
  const author = { by: 'runner', runner: 'r1', epoch: 1, after } as const;
  const outcomes = await Promise.allSettled(
    ending.flatMap(({ run }) => [
      fixture.journal.append(refused.run, author, [result(9)]),
      fixture.append(run, [finished('failed', 'E_SCRIPT')]),
      fixture.journal.append(refused.run, author, [result(9)]),
    ]),
  );
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(ending.length);
  const receipts = await fixture.journal.runs.listReceipts(0, 100);
  expect(receipts.map(({ seq }) => seq)).toEqual(ending.map((_, index) => index + 1));
});
