import { HyphaError, isHyphaError, verifyReport } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { admitNode, createFleet, enrolmentOf, FACTS, openTempDir, waitFor } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { ImpatientClock } from '../test/impatient-clock.ts';
import { MemoryLedger } from '../test/memory-ledger.ts';
import { ReportBuffer } from './report-buffer.ts';
import { Reporter, type ReporterDeps } from './reporter.ts';

const fleet = createFleet();
const RESOURCES = { milliCpus: 1000, memoryBytes: 1, storageBytes: 1 };

async function setUp(folder: string) {
  const node = admitNode(fleet);
  const ledger = new MemoryLedger(fleet.authority);
  const { challenge } = await ledger.challenge();
  await ledger.enrol(enrolmentOf(node, challenge));
  const buffer = await ReportBuffer.open(folder);
  const failures: { readonly error: unknown; readonly dropped?: number }[] = [];
  const deps: ReporterDeps = {
    keys: { nodeId: node.id, signer: node.key },
    buffer,
    ledger,
    sample: async () => ({
      facts: FACTS,
      reserved: RESOURCES,
      free: RESOURCES,
      runsActive: 3,
      authoritySeq: 2,
    }),
    boot: { bootId: 'boot-1', uptimeMs: () => 4321 },
    clock: new ImpatientClock(),
    intervalMs: 10_000,
    onFailure: (failure) => failures.push(failure),
  };
  return { deps, ledger, buffer, failures, node };
}

async function whileRunning(deps: ReporterDeps, body: () => Promise<unknown>): Promise<void> {
  const stopping = new AbortController();
  const running = new Reporter(deps).run(stopping.signal);
  try {
    await body();
  } finally {
    stopping.abort();
    await running;
  }
}

const codeOf = (error: unknown) => (isHyphaError(error) ? error.code : String(error));

describe('a reporter', () => {
  test('delivers signed reports in order, with boot, uptime and what was sampled', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, buffer, node, failures } = await setUp(folder.path);
    await whileRunning(deps, () => waitFor(() => ledger.reportSeqs.length >= 3));
    expect(ledger.reportSeqs.slice(0, 3)).toEqual([1, 2, 3]);
    expect(failures).toEqual([]);
    const kept = await ReportBuffer.open(folder.path);
    const [first] = await kept.pending(1);
    if (first === undefined) throw new Error('no report on disk');
    const { payload } = verifyReport(nodeVerifier, {
      envelope: first.envelope,
      publicKey: node.key.publicKey,
    });
    expect(payload).toMatchObject({ seq: 1, bootId: 'boot-1', uptimeMs: 4321, runsActive: 3 });
    expect(buffer.nextSeq).toBeGreaterThan(3);
  });

  test('goes on making reports while the ledger is away, and delivers them all when it is back', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, buffer, failures } = await setUp(folder.path);
    ledger.fault = new HyphaError('E_UNAVAILABLE', 'away');
    await whileRunning(deps, async () => {
      await waitFor(() => buffer.nextSeq > 10 && failures.length >= 3);
      ledger.fault = undefined;
      await waitFor(() => ledger.reportSeqs.length >= 10);
    });
    expect(ledger.reportSeqs).toEqual(ledger.reportSeqs.map((_, index) => index + 1));
    expect(new Set(failures.map(({ error }) => codeOf(error)))).toEqual(new Set(['E_UNAVAILABLE']));
  });

  test('delivers after a restart what a former process could not, and counts on', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = await setUp(folder.path);
    ledger.fault = new HyphaError('E_UNAVAILABLE', 'away');
    await whileRunning(deps, () => waitFor(() => deps.buffer.nextSeq > 5));
    const made = deps.buffer.nextSeq - 1;
    ledger.fault = undefined;
    const buffer = await ReportBuffer.open(folder.path);
    await whileRunning({ ...deps, buffer }, () => waitFor(() => ledger.reportSeqs.length > made));
    expect(ledger.reportSeqs.slice(0, made + 1)).toEqual(
      Array.from({ length: made + 1 }, (_, index) => index + 1),
    );
  });

  test('counts above what the ledger has when its own count was lost', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = await setUp(folder.path);
    ledger.reportSeqs.push(500);
    await whileRunning(deps, () => waitFor(() => ledger.reportSeqs.length >= 3));
    expect(ledger.reportSeqs.slice(0, 3)).toEqual([500, 501, 502]);
  });

  test('is not stopped by one report the ledger will never take, and names it', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, buffer, failures } = await setUp(folder.path);
    ledger.fault = new HyphaError('E_UNAVAILABLE', 'away');
    ledger.unacceptableSeq = 3;
    await whileRunning(deps, async () => {
      await waitFor(() => buffer.nextSeq > 6);
      ledger.fault = undefined;
      await waitFor(() => ledger.reportSeqs.includes(6));
    });
    expect(ledger.reportSeqs.slice(0, 5)).toEqual([1, 2, 4, 5, 6]);
    expect(failures.flatMap(({ dropped }) => dropped ?? [])).toEqual([3]);
  });

  test('drops nothing for a refusal that is not about the report', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, failures } = await setUp(folder.path);
    ledger.fault = new HyphaError('E_UNAUTHENTICATED', 'clock is off');
    await whileRunning(deps, async () => {
      await waitFor(() => failures.length >= 5);
      ledger.fault = undefined;
      await waitFor(() => ledger.reportSeqs.length >= 2);
    });
    expect(ledger.reportSeqs.slice(0, 2)).toEqual([1, 2]);
    expect(failures.flatMap(({ dropped }) => dropped ?? [])).toEqual([]);
  });

  test('says why when it cannot sample, and goes on', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, failures } = await setUp(folder.path);
    let tries = 0;
    const sample = () => (++tries < 3 ? Promise.reject(new Error('no facts')) : deps.sample());
    await whileRunning({ ...deps, sample }, () => waitFor(() => ledger.reportSeqs.length >= 1));
    expect(failures.map(({ error }) => String(error))).toEqual([
      'Error: no facts',
      'Error: no facts',
    ]);
  });

  test('reports before its turn when something changed, once for several changes', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = await setUp(folder.path);
    const stopping = new AbortController();
    const reporter = new Reporter({
      ...deps,
      clock: new ImpatientClock(60_000),
      intervalMs: 60_000,
    });
    const running = reporter.run(stopping.signal);
    try {
      await waitFor(() => ledger.reportSeqs.length === 1);
      reporter.reportSoon();
      reporter.reportSoon();
      await waitFor(() => ledger.reportSeqs.length === 2);
    } finally {
      stopping.abort();
      await running;
    }
    expect(ledger.reportSeqs).toEqual([1, 2]);
  });

  test('stops at once while it waits for the ledger', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = await setUp(folder.path);
    let asked = false;
    let aborted = false;
    const hanging = {
      ...ledger,
      report: (_node: string, _reports: unknown, options?: { signal?: AbortSignal }) =>
        new Promise<never>((_, reject) => {
          asked = true;
          options?.signal?.addEventListener('abort', () => {
            aborted = true;
            reject(options.signal?.reason);
          });
        }),
    };
    const stopping = new AbortController();
    const running = new Reporter({ ...deps, ledger: hanging }).run(stopping.signal);
    await waitFor(() => asked);
    stopping.abort();
    await running;
    expect(aborted).toBe(true);
  });
});
