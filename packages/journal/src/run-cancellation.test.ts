import { setImmediate } from 'node:timers/promises';
import { firstBrokenEvent } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { expect, test } from 'vitest';
import { JOURNAL_LIMITS } from './journal-limits.ts';
import type { Admission } from './run-admission.ts';
import type { Cancellation } from './run-cancellation.ts';
import {
  admissionOf,
  committed,
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

const undoneStep = [
  { type: 'undo-intent', step: 1 },
  { type: 'undo-result', step: 1, leftover: null },
] as const;

function cancelOf(
  { digest, keyids, payload }: Admission,
  change: Partial<Cancellation> = {},
): Cancellation {
  return {
    digest: 'c'.repeat(64),
    target: digest,
    realm: payload.realm,
    keyids,
    mayCancelAny: false,
    receivedAtMs: fixture.nowMs,
    forgetAtSeconds: NOW_SECONDS + 86_520,
    ...change,
  };
}

test('a run that nobody has begun ends with its cancel, receipt and all', async () => {
  const admission = admissionOf();
  await fixture.journal.admit(admission);
  const told: string[] = [];
  fixture.journal.subscribe(({ state }) => told.push(state));
  const { runs, existing } = await fixture.journal.cancel(cancelOf(admission));
  expect(existing).toBe(false);
  expect(runs).toMatchObject([{ run: admission.run, state: 'cancelled' }]);
  expect(told).toEqual(['cancelled']);
  expect(fixture.journal.reserved().milliCpus).toBe(0);
  expect(fixture.journal.listLanes()).toEqual([]);
  await fixture.reopen();
  expect(await fixture.receiptOf(admission.run)).toMatchObject({
    state: 'cancelled',
    code: 'E_CANCELLED',
    cancelRequestedAt: fixture.nowMs,
    steps: 0,
  });
  const claim = fixture.journal.claim(admission.run, OWNER);
  await expect(claim).rejects.toThrow(refusal('E_STALE_EPOCH'));
});

test('a running run begins no further step and does not commit, also after a restart', async () => {
  const { run, ...admission } = await fixture.start();
  await fixture.append(run, [intent(1, null)]);
  const { runs } = await fixture.journal.cancel(cancelOf({ run, ...admission }));
  const requested = { state: 'running', cancelRequestedAt: fixture.nowMs };
  expect(runs).toMatchObject([requested]);
  await fixture.reopen();
  expect(fixture.journal.findUnfinished(run)).toMatchObject(requested);
  await fixture.journal.reattach(run, OWNER);
  const cancelled = refusal('E_CANCELLED');
  // All or none: the outcome goes alone.
  const together = fixture.append(run, [result(1), intent(2, null)]);
  await expect(together).rejects.toThrow(cancelled);
  await fixture.append(run, [result(1)]);
  await expect(fixture.append(run, [committed()])).rejects.toThrow(cancelled);
  await fixture.append(run, [...undoneStep, finished('cancelled', 'E_CANCELLED')]);
  const receipt = await fixture.receiptOf(run);
  expect(receipt).toMatchObject({ state: 'cancelled', cancelRequestedAt: fixture.nowMs, steps: 1 });
});

test('a step begun before the cancel is answered again when its answer was lost', async () => {
  const { run, ...admission } = await fixture.start();
  const { seq: after } = await fixture.journal.runs.getRun(run);
  const append = () =>
    fixture.journal.append(run, { by: 'runner', runner: 'r1', epoch: 1, after }, [intent(1, null)]);
  const first = await append();
  await fixture.journal.cancel(cancelOf({ run, ...admission }));
  expect(await append()).toEqual(first);
});

test('a run that is claimed and has not started is told, and not ended behind its owner', async () => {
  const admission = admissionOf();
  await fixture.journal.admit(admission);
  await fixture.journal.claim(admission.run, OWNER);
  const { runs } = await fixture.journal.cancel(cancelOf(admission));
  expect(runs).toMatchObject([{ state: 'accepted', cancelRequestedAt: fixture.nowMs }]);
  await fixture.append(admission.run, [started(), finished('cancelled', 'E_CANCELLED')]);
  expect(await fixture.stateOf(admission.run)).toBe('cancelled');
});

test('a second cancel is the first one', async () => {
  const { journal } = fixture;
  const waiting = admissionOf({ deployment: 'a' });
  await journal.admit(waiting);
  const running = await fixture.start({ deployment: 'b' });
  for (const admission of [waiting, running]) {
    expect(await journal.cancel(cancelOf(admission))).toMatchObject({ existing: false });
    const again = cancelOf(admission, { digest: 'd'.repeat(64), receivedAtMs: 7 });
    const { runs, existing } = await journal.cancel(again);
    expect(existing).toBe(true);
    expect(runs).toMatchObject([{ run: admission.run, cancelRequestedAt: fixture.nowMs }]);
  }
});

test('who claims a parked run while its cancel is being written is known to hold it', async () => {
  const admission = await fixture.start({}, intent(1, null));
  const { run } = admission;
  const { journal } = fixture;
  const author = { by: 'runner', runner: 'r1', epoch: 1, after: 3 } as const;
  await journal.park(run, author, fixture.nowMs + 1);
  const write = fixture.holdNextWrite();
  const cancelled = journal.cancel(cancelOf(admission));
  await write.asked;
  const claimed = journal.claim(run, { ...OWNER, runner: 'r2', epoch: 2 });
  write.letGo();
  await Promise.all([cancelled, claimed]);
  const held = { holder: 'r2', epoch: 2, cancelRequestedAt: fixture.nowMs };
  expect(journal.findUnfinished(run)).toMatchObject(held);
  expect(await journal.runs.getRun(run)).toMatchObject(held);
});

test('two cancels at once are one', async () => {
  const admission = await fixture.start();
  const outcomes = await Promise.all(
    [1, 2, 3].map((at) => fixture.journal.cancel(cancelOf(admission, { receivedAtMs: at }))),
  );
  expect(outcomes.filter(({ existing }) => !existing)).toHaveLength(1);
});

test('a cancel that was accepted stands when its run fails by itself', async () => {
  const admission = await fixture.start();
  await fixture.append(admission.run, [intent(1, null), result(1), undoneStep[0]]);
  await fixture.journal.cancel(cancelOf(admission));
  await fixture.append(admission.run, [undoneStep[1], finished('failed', 'E_SCRIPT')]);
  expect(await fixture.receiptOf(admission.run)).toMatchObject({
    state: 'failed',
    cancelRequestedAt: fixture.nowMs,
  });
  expect(await fixture.journal.cancel(cancelOf(admission))).toMatchObject({ existing: true });
});

test('a run that is committed, succeeded or failed is not cancelled any more', async () => {
  const { run, ...admission } = await fixture.start();
  const cancel = cancelOf({ run, ...admission });
  const tooLate = refusal('E_TOO_LATE');
  await fixture.append(run, [committed()]);
  await expect(fixture.journal.cancel(cancel)).rejects.toThrow(tooLate);
  await fixture.succeed(run);
  await expect(fixture.journal.cancel(cancel)).rejects.toThrow(tooLate);
  expect(await fixture.receiptOf(run)).not.toHaveProperty('cancelRequestedAt');
  const failed = await fixture.start();
  await fixture.append(failed.run, [finished('failed', 'E_SCRIPT')]);
  await fixture.reopen();
  await expect(fixture.journal.cancel(cancelOf(failed))).rejects.toThrow(tooLate);
});

test('only a signer of the target, or one who may cancel any, cancels it, in its realm', async () => {
  const admission = await fixture.start();
  const scope = refusal('E_SCOPE');
  const other = { keyids: ['ed25519:other'] };
  const { journal } = fixture;
  await expect(journal.cancel(cancelOf(admission, other))).rejects.toThrow(scope);
  const elsewhere = cancelOf(admission, { realm: 'lab', mayCancelAny: true });
  await expect(journal.cancel(elsewhere)).rejects.toThrow(scope);
  expect(journal.findUnfinished(admission.run)?.cancelRequestedAt).toBeNull();
  await fixture.reopen();
  const admin = cancelOf(admission, { ...other, mayCancelAny: true });
  await expect(fixture.journal.cancel(admin)).resolves.toMatchObject({ existing: false });
});

test('work that comes after its cancel is accepted and ends at once, also after a restart', async () => {
  const admission = admissionOf({ generation: 900 });
  const first = await fixture.journal.cancel(cancelOf(admission));
  expect(first).toEqual({ runs: [], existing: false });
  expect(await fixture.journal.cancel(cancelOf(admission))).toEqual({ runs: [], existing: true });
  await fixture.reopen();
  const told: string[][] = [];
  fixture.journal.subscribe((_, events) => told.push(events.map(({ body }) => body.type)));
  const { entry, existing } = await fixture.journal.admit(admission);
  expect(existing).toBe(false);
  expect(entry).toMatchObject({ state: 'cancelled', endedAt: fixture.nowMs, seq: 2 });
  expect(told).toEqual([['accepted', 'finished']]);
  expect(fixture.journal.listLanes()).toEqual([]);
  expect(fixture.journal.reserved().milliCpus).toBe(0);
  const events = await fixture.journal.runs.readAllEvents(admission.run);
  expect(firstBrokenEvent(nodeVerifier, events)).toBeNull();
  await fixture.reopen();
  expect(await fixture.receiptOf(admission.run)).toMatchObject({
    state: 'cancelled',
    code: 'E_CANCELLED',
    cancelRequestedAt: fixture.nowMs,
    journalHead: events.at(-1)?.hash,
  });
  const stored = await fixture.journal.runs.getRun(admission.run);
  expect(stored).toEqual(entry);
  expect(await fixture.journal.admit(admission)).toMatchObject({ existing: true, entry: stored });
  expect(await fixture.journal.cancel(cancelOf(admission))).toMatchObject({ existing: true });
  // It was admitted: its generation is taken.
  const lower = fixture.journal.admit(admissionOf({ generation: 899 }));
  await expect(lower).rejects.toThrow(refusal('E_SUPERSEDED'));
});

test('receipts of work that came too late are in the chain with all others', async () => {
  const late = [1, 2, 3].map((each) => admissionOf({ deployment: `late-${each}` }));
  for (const admission of late) await fixture.journal.cancel(cancelOf(admission));
  const failing = await fixture.start();
  await Promise.all([
    ...late.map((admission) => fixture.journal.admit(admission)),
    fixture.append(failing.run, [finished('failed', 'E_SCRIPT')]),
  ]);
  const receipts = await fixture.journal.runs.listReceipts(0, 10);
  expect(receipts.map(({ seq }) => seq)).toEqual([1, 2, 3, 4]);
  const payloads = receipts.map(({ envelope }) =>
    JSON.parse(Buffer.from(envelope.payload, 'base64').toString()),
  );
  const digests = receipts.map(({ digest }) => digest);
  expect(payloads.map(({ prev }) => prev)).toEqual([null, ...digests.slice(0, -1)]);
});

test('the cancel of one who may not cancel that work is ignored when the work comes', async () => {
  const admission = admissionOf();
  const { journal } = fixture;
  await journal.cancel(cancelOf(admission, { keyids: ['ed25519:other'] }));
  await journal.cancel(cancelOf(admission, { realm: 'lab', mayCancelAny: true }));
  const { entry } = await journal.admit(admission);
  expect(entry).toMatchObject({ state: 'accepted', cancelRequestedAt: null });
});

test('a cancel with more power than the one before it counts', async () => {
  const admission = admissionOf();
  const other = { keyids: ['ed25519:other'] };
  await fixture.journal.cancel(cancelOf(admission, other));
  await fixture.journal.cancel(cancelOf(admission, { ...other, mayCancelAny: true }));
  await fixture.journal.cancel(cancelOf(admission, other));
  await fixture.reopen();
  const { entry } = await fixture.journal.admit(admission);
  expect(entry.state).toBe('cancelled');
});

test('a cancel and its target that come at once end in a cancelled run, in any order', async () => {
  for (let turns = 0; turns < 8; turns++) {
    for (const first of ['run', 'cancel'] as const) {
      const admission = admissionOf({ deployment: `${first}-${turns}` });
      const admit = () => fixture.journal.admit(admission);
      const cancel = () => fixture.journal.cancel(cancelOf(admission));
      const begun = first === 'run' ? admit() : cancel();
      // The second comes while the first is anywhere on its way.
      for (let turn = 0; turn < turns; turn++) await setImmediate();
      await Promise.all([begun, first === 'run' ? cancel() : admit()]);
      expect(await fixture.stateOf(admission.run)).toBe('cancelled');
    }
  }
});

test('work that begins long after it was signed is refused once its cancel may be forgotten', async () => {
  const late = NOW_SECONDS + 3 * 86_400;
  const scheduled = (deployment: string) => admissionOf({ deployment, nbf: late, exp: late + 900 });
  const forget = async () => await fixture.journal.horizon.forget(late);
  await forget();
  // Nothing was cancelled, so nothing is refused.
  const first = await fixture.journal.admit(scheduled('a'));
  expect(first.entry.state).toBe('accepted');
  const cancelled = scheduled('b');
  await fixture.journal.cancel(cancelOf(cancelled, { forgetAtSeconds: NOW_SECONDS + 86_520 }));
  await forget();
  for (const admission of [cancelled, scheduled('c')]) {
    const refused = { code: 'E_EXPIRED', where: { path: 'iat' } };
    await expect(fixture.journal.admit(admission)).rejects.toMatchObject(refused);
    await fixture.reopen();
  }
  const signedLater = admissionOf({ deployment: 'd', iat: late, nbf: late, exp: late + 900 });
  const { entry } = await fixture.journal.admit(signedLater);
  expect(entry.state).toBe('accepted');
});

test('an early cancel is kept until its target is refused as expired, and no longer', async () => {
  const { horizon } = fixture.journal;
  const forgetAtSeconds = NOW_SECONDS + 900;
  const kept = admissionOf({ deployment: 'a' });
  await fixture.journal.cancel(cancelOf(kept, { forgetAtSeconds }));
  await horizon.forget(forgetAtSeconds + JOURNAL_LIMITS.replayGraceSeconds);
  expect((await fixture.journal.admit(kept)).entry.state).toBe('cancelled');
  const dropped = admissionOf({ deployment: 'b', exp: NOW_SECONDS + 2000 });
  await fixture.journal.cancel(cancelOf(dropped, { forgetAtSeconds }));
  await horizon.forget(forgetAtSeconds + JOURNAL_LIMITS.replayGraceSeconds + 1);
  expect((await fixture.journal.admit(dropped)).entry.state).toBe('accepted');
  await fixture.reopen();
  const again = await fixture.journal.cancel(cancelOf(admissionOf({ deployment: 'c' })));
  expect(again).toEqual({ runs: [], existing: false });
});

test('early cancels of one key are bounded, and no accepted one is lost for it', async () => {
  const targets = Array.from({ length: JOURNAL_LIMITS.tombstonesPerKeyMax }, (_, index) =>
    index.toString(16).padStart(64, '0'),
  );
  const mine = admissionOf();
  await fixture.journal.cancel(cancelOf(mine));
  const outcomes = await Promise.allSettled(
    targets.map((target) => fixture.journal.cancel(cancelOf(mine, { target }))),
  );
  const refused = outcomes.filter(({ status }) => status === 'rejected');
  expect(refused).toMatchObject([{ reason: { code: 'E_RATE' } }]);
  const other = cancelOf(admissionOf(), { keyids: ['ed25519:other'] });
  await expect(fixture.journal.cancel(other)).resolves.toMatchObject({ existing: false });
  expect((await fixture.journal.admit(mine)).entry.state).toBe('cancelled');
});
