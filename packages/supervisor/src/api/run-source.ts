import type { Journal, RunEntry } from '@hypha/journal';
import { HyphaError, type JournalEvent, type Page, type RunView } from '@hypha/protocol';
import type { RunFilter, RunSource, ServerEvent } from '@hypha/service';
import { followRun } from '../run-events.ts';

/** What this node's journal has to tell of runs. */
export function runSource(journal: Journal, node: string): RunSource {
  const { runs } = journal;
  return {
    find: async (run) => {
      const entry = journal.findUnfinished(run) ?? (await runs.findRun(run));
      return entry === undefined ? undefined : viewOf(entry, node);
    },
    list: async (filter) => {
      if (filter.node !== undefined && filter.node !== node) return { items: [], nextCursor: null };
      return await listRuns(journal, node, filter);
    },
    events: (run, seq, signal) => eventsOf(followRun(journal, run, seq, signal)),
    journal: async (run, { limit, cursor }) => {
      const after = cursorOf(cursor) ?? 0;
      const items = await runs.listEvents(run, { after, limit: limit + 1 });
      const page = items.slice(0, limit);
      return { items: page, nextCursor: items.length > limit ? String(page.at(-1)?.seq) : null };
    },
    findOutput: async (run) => {
      const committed = await runs.findCommitted(run);
      if (committed === undefined) return undefined;
      return { output: committed.output, sha256: committed.outputSha256 };
    },
    envelope: (run) => runs.readEnvelope(run),
    findReceipt: (run) => runs.findReceipt(run),
  };
}

async function listRuns(
  journal: Journal,
  node: string,
  { realms, deployment, state, since, limit, cursor }: RunFilter,
): Promise<Page<RunView>> {
  const beforePosition = cursorOf(cursor);
  const entries = await journal.runs.listRuns({
    limit: limit + 1,
    ...(realms === undefined ? {} : { realms }),
    ...(deployment === undefined ? {} : { deployment }),
    ...(state === undefined ? {} : { state }),
    ...(since === undefined ? {} : { since }),
    ...(beforePosition === undefined ? {} : { beforePosition }),
  });
  const page = entries.slice(0, limit);
  return {
    items: page.map((entry) => viewOf(entry, node)),
    nextCursor: entries.length > limit ? String(page.at(-1)?.position) : null,
  };
}

function viewOf(entry: RunEntry, node: string): RunView {
  const { run, revision, realm, deployment, generation, mode, state, steps } = entry;
  const { acceptedAt, startedAt, endedAt, problem, simulated, message } = entry;
  const { wakeAt, cancelRequestedAt } = entry;
  return {
    ...{ run, revision, node, realm, deployment, generation, mode, state, steps },
    ...{ acceptedAt, startedAt, endedAt, problem, simulated, message },
    envelopeDigest: entry.digest,
    ...(wakeAt === null ? {} : { waitingUntil: wakeAt }),
    ...(cancelRequestedAt === null ? {} : { cancelRequestedAt }),
  };
}

async function* eventsOf(
  events: AsyncIterable<JournalEvent>,
): AsyncGenerator<ServerEvent, void, undefined> {
  for await (const event of events) {
    yield { id: String(event.seq), event: event.body.type, data: JSON.stringify(event) };
  }
}

function cursorOf(cursor: string | undefined): number | undefined {
  if (cursor === undefined) return undefined;
  if (/^\d{1,15}$/.test(cursor)) return Number(cursor);
  throw new HyphaError('E_REQUEST', `this list has no cursor ${JSON.stringify(cursor)}`, {
    where: { path: 'query.cursor' },
  });
}
