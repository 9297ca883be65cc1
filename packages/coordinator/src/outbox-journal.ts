import {
  type Envelope,
  fromBase64,
  fromUtf8,
  HyphaError,
  isKeptLeftover,
  isTerminal,
  type JournalBody,
  type JournalEvent,
  type JournalType,
  type OutboxResult,
  ReceiptPayload,
  type RunState,
  verifyReceipt,
} from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import { cancelMarkWrites } from './cancel-outcome.ts';
import { continueJournal } from './journal-intake.ts';
import { openStepsAfter } from './open-steps.ts';
import type { OutboxDeps } from './outbox-deps.ts';
import { runTopic } from './run-book.ts';
import { foldOf, openStepsOf, type RunRow } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';

/** From these on a run holds less of its node. */
const ENDS: ReadonlySet<JournalType> = new Set(['committed', 'finished']);

/** Rows of one insert. */
const EVENTS_PER_INSERT = 100;

/**
 * Stores what continues the run's journal. Throws `E_CONFLICT` when the events contradict what is stored;
 * what came before the contradiction is kept.
 */
export async function storeEvents(
  deps: OutboxDeps,
  row: RunRow,
  events: readonly JournalEvent[],
): Promise<OutboxResult> {
  const { store, verifier, runs, settling, clock } = deps;
  const intake = continueJournal(
    verifier,
    {
      run: row.run,
      node: row.node,
      digest: row.digest,
      lastSeq: row.last_seq,
      head: row.head,
      fold: foldOf(row),
    },
    events,
    await readHashes(store, row, events),
  );
  const { fold, lastSeq, head, wanted, contradiction } = intake;
  if (intake.events.length > 0) {
    await checkReceiptAgrees(deps, row, { head, state: fold.state });
    const openSteps = openStepsAfter(openStepsOf(row), intake.events);
    const keeps = intake.events.some(({ body }) => isKeeping(body));
    const journal = { fold, lastSeq, head, openSteps, keeps };
    // The node speaks of the run itself: nothing has to be assumed or sent any more.
    const forget = {
      query: store.db.deleteFrom('inbox_messages').where('run', '=', row.run),
    };
    await runs.change(row, { journal, guess: null }, clock.nowMs(), [
      ...insertEvents(store, intake.events),
      forget,
    ]);
    if (intake.events.some(({ body }) => ENDS.has(body.type))) settling.runEnded(row.node);
  }
  if (contradiction !== undefined) throw contradict(deps, row, contradiction);
  return wanted === undefined ? { status: 'ok' } : { status: 'want-events', seq: wanted };
}

/**
 * Stores the node's signed receipt. Throws the codes of `verifyReceipt`, and `E_CONFLICT` when it speaks
 * against the run's journal or another receipt.
 */
export async function storeReceipt(
  deps: OutboxDeps,
  row: RunRow,
  envelope: Envelope,
): Promise<OutboxResult> {
  const { store, verifier, fleet } = deps;
  const publicKey = fleet.findKey(row.node);
  if (publicKey === undefined) {
    throw new HyphaError('E_UNKNOWN_KEY', `the key of ${row.node} is not known`);
  }
  const { payload, digest } = verifyReceipt(verifier, { envelope, publicKey });
  if (payload.run !== row.run) {
    throw new HyphaError('E_CONFLICT', `the receipt is of run ${payload.run}, not of ${row.run}`);
  }
  const { state } = foldOf(row);
  if (isTerminal(state)) checkAgree(deps, row, payload, { head: row.head, state });
  const [result] = await store.write([
    {
      query: store.db
        .insertInto('receipts')
        .values({ run: row.run, digest, envelope: JSON.stringify(envelope) })
        .onConflict((conflict) => conflict.column('run').doNothing()),
    },
  ]);
  if (result?.rowsAffected !== 1) {
    const stored = await findReceipt(store, row.run);
    if (stored?.digest !== digest) throw contradict(deps, row, 'another receipt is stored');
  }
  await markCancel(deps, row, payload);
  return { status: 'ok' };
}

/** A cancel can have reached the node on another path (design §9): then its receipt tells of it first. */
async function markCancel(
  { store, changes, bell, clock }: OutboxDeps,
  row: RunRow,
  { cancelRequestedAt }: ReceiptPayload,
): Promise<void> {
  if (cancelRequestedAt === undefined || row.cancel_requested_at !== null) return;
  await store.write(cancelMarkWrites({ store, changes }, row, cancelRequestedAt, clock.nowMs()));
  changes.ring();
  bell.ring(runTopic(row.run));
}

/** A failure that was signed to be kept: only then it leaves what could have been undone. */
function isKeeping(body: JournalBody): boolean {
  if (body.type !== 'finished' || body.state === 'succeeded') return false;
  return body.leftovers.some(isKeptLeftover);
}

function findReceipt(store: Store<CoordinatorDb>, run: string) {
  return store.db.selectFrom('receipts').selectAll().where('run', '=', run).executeTakeFirst();
}

/** A receipt can be here before the end of the journal it speaks of. */
async function checkReceiptAgrees(
  deps: OutboxDeps,
  row: RunRow,
  end: { readonly head: string; readonly state: RunState },
): Promise<void> {
  if (!isTerminal(end.state)) return;
  const receipt = await findReceipt(deps.store, row.run);
  if (receipt === undefined) return;
  // Verified before it was stored.
  const { payload } = JSON.parse(receipt.envelope) as Envelope;
  checkAgree(deps, row, ReceiptPayload.parse(JSON.parse(fromUtf8(fromBase64(payload)))), end);
}

function checkAgree(
  deps: OutboxDeps,
  row: RunRow,
  receipt: ReceiptPayload,
  end: { readonly head: string; readonly state: RunState },
): void {
  if (receipt.journalHead !== end.head)
    throw contradict(deps, row, 'receipt and journal have different heads');
  if (receipt.state !== end.state)
    throw contradict(deps, row, `receipt says ${receipt.state}, journal ${end.state}`);
}

/** A node that says two different things is broken or worse: somebody has to look at it. */
function contradict(deps: OutboxDeps, row: RunRow, reason: string): HyphaError {
  deps.log.error({ nodeId: row.node, run: row.run, reason }, 'node contradicts itself');
  return new HyphaError('E_CONFLICT', `run ${row.run} of ${row.node}: ${reason}`, {
    where: { path: row.run },
    hint: 'keep the journal of the node as evidence, and look at the node',
  });
}

async function readHashes(
  store: Store<CoordinatorDb>,
  row: RunRow,
  events: readonly JournalEvent[],
): Promise<ReadonlyMap<number, string>> {
  const known = events.map(({ seq }) => seq).filter((seq) => seq <= row.last_seq);
  if (known.length === 0) return new Map();
  const rows = await store.db
    .selectFrom('journal_events')
    .select(['seq', 'hash'])
    .where('run', '=', row.run)
    .where('seq', 'in', known)
    .execute();
  return new Map(rows.map(({ seq, hash }) => [seq, hash]));
}

function insertEvents(
  store: Store<CoordinatorDb>,
  events: readonly JournalEvent[],
): readonly Write[] {
  const rows = events.map((event) => ({
    run: event.run,
    seq: event.seq,
    type: event.body.type,
    hash: event.hash,
    event: JSON.stringify(event),
  }));
  const writes: Write[] = [];
  for (let at = 0; at < rows.length; at += EVENTS_PER_INSERT) {
    const values = rows.slice(at, at + EVENTS_PER_INSERT);
    writes.push({
      query: store.db.insertInto('journal_events').values(values),
      expectRows: values.length,
    });
  }
  return writes;
}
