import { type Checkpoint, HyphaError } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { fetchAuthority } from '../authority-chain.ts';
import { EXIT } from '../exit-code.ts';
import { describeEntry, momentOf, printable } from '../log-narrative.ts';
import type { Session } from '../session.ts';
import { CheckpointMemory } from './checkpoint-memory.ts';
import type { AuditedEntry } from './entry-auditor.ts';
import { dateOf, LogAudit, type LogVerdict } from './log-audit.ts';
import { isBy, isWanted, type LogFilter } from './log-filter.ts';
import { RevisionSigners } from './revision-signers.ts';

/** In a structured format all shown entries are one document, held in memory. */
const SHOWN_MAX = 100_000;

interface ShownEntry {
  readonly index: number;
  /** Epoch milliseconds, as its signer says. */
  readonly at: number;
  readonly kind: string;
  readonly sentence: string;
  /** Of the revision of a run; null when nobody can say. */
  readonly signers: readonly string[] | null;
  readonly digest: string;
}

/** Prints what the filter lets through, then whether that was all of the log. Answers the exit code. */
export async function reportLog(session: Session, filter: LogFilter): Promise<number> {
  const { output, context } = session;
  const memory = new CheckpointMemory(session.flags, session.env, context.genesis);
  const remembered = await memory.read();
  const audit = new LogAudit({
    ledger: session.ledger(),
    verifier: nodeVerifier,
    genesisHash: context.genesis,
    authority: await fetchAuthority(session),
    remembered,
  });
  const signers = new RevisionSigners(session.coordinator(), nodeVerifier);
  const kept: ShownEntry[] = [];
  let unknown = 0;
  for await (const page of audit.pages()) {
    const { entries, unsigned } = await choose(page, audit, signers, filter);
    unknown += unsigned;
    for (const shown of entries) {
      if (output.format === 'table')
        output.line(`${new Date(shown.at).toISOString()}  ${shown.sentence}`);
      else kept.push(shown);
    }
    checkShown(kept.length);
  }
  const verdict = audit.verdict();
  const remarks = unknown === 0 ? [] : [unknownSigners(unknown, filter, signers.reason)];
  const evidence = await remember(memory, remembered, verdict, session.nowMs());
  if (evidence !== undefined) remarks.push(`both checkpoints are kept in ${evidence}`);
  if (output.format !== 'table') {
    const { complete, size, checkpoint, faults } = verdict;
    const seen = remembered?.note ?? null;
    output.item(
      {
        entries: kept,
        complete,
        size,
        checkpoint: checkpoint?.note ?? null,
        seen,
        faults,
        remarks,
      },
      [],
    );
  }
  for (const remark of remarks) output.note(remark);
  for (const line of describeVerdict(verdict, remembered))
    output.line(output.style(verdict.complete ? 'green' : 'red', line));
  return verdict.complete ? EXIT.ok : EXIT.refused;
}

/** Also how many runs there were whose signer nobody can say: some of them may be wanted. */
async function choose(
  page: readonly AuditedEntry[],
  audit: LogAudit,
  revisions: RevisionSigners,
  filter: LogFilter,
): Promise<{ readonly entries: readonly ShownEntry[]; readonly unsigned: number }> {
  const { authority } = audit;
  const wanted = page.filter((entry) => isWanted(filter, entry));
  if (authority === undefined) return { entries: [], unsigned: 0 };
  const runs = wanted.flatMap(({ statement }) =>
    statement.kind === 'receipt' ? [statement.payload] : [],
  );
  await revisions.prepare(runs, authority);
  const entries: ShownEntry[] = [];
  let unsigned = 0;
  for (const entry of wanted) {
    const { statement, index, digest } = entry;
    const nameOf = (id: string) => audit.nameOf(id);
    const signers =
      statement.kind === 'receipt' ? await revisions.find(statement.payload, authority) : null;
    if (statement.kind === 'receipt' && signers === null) unsigned++;
    if (!isBy(filter, entry, signers, nameOf)) continue;
    const sentence = describeEntry(entry, { nameOf, signers });
    entries.push({ index, at: momentOf(entry), kind: statement.kind, sentence, signers, digest });
  }
  return { entries, unsigned };
}

/** What was complete is the measure for the next time; what was not must not become it. */
async function remember(
  memory: CheckpointMemory,
  remembered: Checkpoint | null,
  { complete, checkpoint, faults }: LogVerdict,
  nowMs: number,
): Promise<string | undefined> {
  if (checkpoint === null) return undefined;
  if (complete) {
    await memory.keep(checkpoint);
    return undefined;
  }
  const fork = faults.find(({ code }) => code === 'E_LOG_FORK');
  if (remembered === null || fork === undefined) return undefined;
  return memory.keepEvidence(fork.message, { seen: remembered, served: checkpoint, nowMs });
}

function describeVerdict(verdict: LogVerdict, remembered: Checkpoint | null): string[] {
  const { complete, size, checkpoint, faults } = verdict;
  if (!complete || checkpoint === null) {
    return [
      `NOT complete: ${faults.length} ${faults.length === 1 ? 'thing' : 'things'} missing or wrong among ${size} entries`,
      ...faults.map(({ index, code, message }) =>
        printable(`  entry ${index}: ${code}: ${message}`),
      ),
    ];
  }
  const signed = `root ${checkpoint.root.slice(0, 12)}… signed by the ledger at ${dateOf(checkpoint.time)}`;
  const seen =
    remembered === null
      ? 'the first checkpoint seen from here'
      : `consistent with the checkpoint of ${remembered.size} entries seen on ${dateOf(remembered.time)}`;
  return [`complete: ${size} entries, ${signed}, ${seen}`];
}

function unknownSigners(count: number, filter: LogFilter, reason: string | undefined): string {
  const why = reason ?? 'the coordinator does not hold their envelopes any more';
  const effect = filter.by === null ? '' : '; those of such runs that --by asks for are not shown';
  return `who signed the revision of ${count} of these runs is not known: ${why}${effect}`;
}

function checkShown(count: number): void {
  if (count <= SHOWN_MAX) return;
  throw new HyphaError('E_SIZE', `more than ${SHOWN_MAX} entries to show in one document`, {
    hint: 'narrow it down with --since and --until, or use -o table',
  });
}
