/** Auditing on real processes: what the log says, that it is all of it, and what a lying ledger cannot hide. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AuditBundle, LogEntry, Page } from '@hypha/protocol';
import { waitFor } from '@hypha/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CliResult, Fleet } from './fixtures/fleet.ts';
import { SignedRuns } from './fixtures/signed-runs.ts';
import { type Tamper, TamperingProxy } from './fixtures/tampering-proxy.ts';

const DELIVERED_MS = 20_000;

let fleet: Fleet;
let proxy: TamperingProxy;
/** State folder of an operator whose ledger is the proxy. */
let misled: string;
let run: string;

beforeAll(async () => {
  fleet = await Fleet.start('--nodes', '1');
  const runs = await SignedRuns.open(fleet);
  const draft = { generation: 1, source: 'export default () => null;\n', caps: [] };
  for (const deployment of ['web', 'db', 'mail'])
    run = (await runs.finish(runs.sign({ ...draft, deployment }))).run;
  await waitFor(
    async () => (await fleet.ledger.listEntries({ kind: 'receipt', run })).items.length === 1,
    { timeoutMs: DELIVERED_MS, what: 'the last receipt in the ledger' },
  );
  proxy = await TamperingProxy.open(fleet.line.ledger.url);
  misled = mkdtempSync(join(tmpdir(), 'hypha-misled-'));
  const context = JSON.parse(readFileSync(join(fleet.state, 'context.json'), 'utf8'));
  writeFileSync(join(misled, 'context.json'), JSON.stringify({ ...context, ledger: proxy.url }));
});
afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]();
  await fleet?.[Symbol.asyncDispose]();
  if (misled !== undefined) rmSync(misled, { recursive: true });
});

/** What an operator reads whose ledger is the proxy. */
const misledLog = () => fleet.hyphaIn(misled, 'audit', 'log');
const linesOf = ({ stdout }: CliResult) => stdout.trimEnd().split('\n');

describe('the log', () => {
  test('reads as a sentence per line and ends with whether it is complete', async () => {
    const first = await fleet.hypha('audit', 'log');
    const lines = linesOf(first);
    expect({ code: first.code, stderr: first.stderr }).toEqual({ code: 0, stderr: '' });
    const when = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z {2}`;
    for (const sentence of [
      'root began the fleet: 1 of 1 root key \\(root\\) must sign \\(authority 0\\)',
      'admin admitted a node as node-1, by a join token good until .*',
      'node-1 \\(node_.*…\\) enrolled from .*',
      'operator’s apply of default/web generation 1 succeeded on node-1 after 0 steps \\(run_.*…\\)',
    ])
      expect(lines).toContainEqual(expect.stringMatching(new RegExp(`^${when}${sentence}$`)));
    expect(lines.at(-1)).toMatch(
      /^complete: \d+ entries, root [0-9a-f]{12}… signed by the ledger at \S+, the first checkpoint seen from here$/,
    );
    expect(linesOf(await fleet.hypha('audit', 'log')).at(-1)).toMatch(
      /, consistent with the checkpoint of \d+ entries seen on \S+$/,
    );
  });

  test.for([
    [['--deployment', 'db'], 1],
    [['--deployment', 'default/db'], 1],
    [['--deployment', 'other/db'], 0],
    [['--by', 'operator'], 3],
    // Its enrolment, and the receipts that it signed.
    [['--by', 'node-1'], 4],
    [['--by', 'nobody'], 0],
    [['--by', 'operator', '--deployment', 'mail', '--since', '1h'], 1],
    [['--until', '2020-01-01'], 0],
  ] as const)(
    'with %j shows %i of its entries, and is complete all the same',
    async ([flags, count]) => {
      const { code, stdout } = await fleet.hypha('audit', 'log', '-o', 'json', ...flags);
      const document = JSON.parse(stdout) as { entries: unknown[]; complete: boolean };
      expect({ code, shown: document.entries.length, complete: document.complete }).toEqual({
        code: 0,
        shown: count,
        complete: true,
      });
    },
  );

  test('says so when nobody can tell who signed a revision', async () => {
    const context = JSON.parse(readFileSync(join(fleet.state, 'context.json'), 'utf8'));
    const alone = mkdtempSync(join(tmpdir(), 'hypha-alone-'));
    const coordinator = 'http://127.0.0.1:1';
    writeFileSync(join(alone, 'context.json'), JSON.stringify({ ...context, coordinator }));
    const args = ['audit', 'log', '--deployment', 'web'];
    const { code, stdout, stderr } = await fleet.hyphaIn(alone, ...args);
    rmSync(alone, { recursive: true });
    expect({ code, stdout }).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('an unknown signer’s apply of default/web'),
    });
    expect(stderr).toMatch(
      /^who signed the revision of 1 of these runs is not known: cannot reach/,
    );
  });
});

describe('a ledger that lies', () => {
  /** Changes the one page that holds the whole of this log. */
  const pages =
    (change: (items: LogEntry[]) => LogEntry[]): Tamper =>
    ({ path, body }) => {
      const page = body as Page<LogEntry>; // what this route answers
      return path === '/v1/log/entries' ? { ...page, items: change(page.items) } : body;
    };
  const isReceipt = ({ kind }: LogEntry) => kind === 'receipt';
  const flip = (entry: LogEntry): LogEntry => {
    const payload = Buffer.from(entry.envelope.payload, 'base64').toString();
    const other = Buffer.from(payload.replace('succeeded', 'cancelled')).toString('base64');
    return { ...entry, envelope: { ...entry.envelope, payload: other } };
  };

  const sevenEntries: Tamper = ({ path, body }) =>
    path === '/v1/log/checkpoint'
      ? { checkpoint: String(Object(body).checkpoint).replace(/\n(\d+)\n/, '\n7\n') }
      : body;

  test.for([
    [
      'changes an outcome',
      pages((items) => items.map((entry) => (isReceipt(entry) ? flip(entry) : entry))),
      /E_DIGEST: the ledger calls it/,
    ],
    [
      'leaves a run out',
      pages((items) => items.toSpliced(items.findIndex(isReceipt), 1)),
      /entry \d+: E_PROOF: entry \d+ is missing/,
    ],
    [
      'leaves a run out and closes the gap',
      pages((items) =>
        items.toSpliced(items.findIndex(isReceipt), 1).map((entry, index) => ({ ...entry, index })),
      ),
      /E_CONFLICT: receipt 2 of node-1 follows one that is missing/,
    ],
    [
      'tells it in another order',
      pages((items) => {
        const at = items.findIndex(isReceipt);
        const [a, b] = items.slice(at, at + 2);
        return a === undefined || b === undefined ? items : items.toSpliced(at, 2, b, a);
      }),
      /E_PROOF: entry \d+ is missing/,
    ],
    [
      'leaves the end out',
      pages((items) => items.slice(0, -1)),
      /E_PROOF: entries \d+ to \d+ are missing at the end/,
    ],
    [
      'shows a checkpoint that was changed',
      sevenEntries,
      /E_CHECKPOINT: cannot believe the checkpoint: a signature of hypha\/\S+ does not hold/,
    ],
  ] as const)('and %s is found out', async ([, tamper, says]) => {
    proxy.tamper = tamper;
    const { code, stdout } = await misledLog();
    expect(stdout).toMatch(/^NOT complete: \d+ things? missing or wrong among \d+ entries$/m);
    expect(stdout).toMatch(says);
    expect(code).toBe(3);
  });

  test('and shows an old log is found out by whoever has seen a newer one, who keeps both heads', async () => {
    let old: unknown;
    proxy.tamper = ({ path, body }) => {
      if (path === '/v1/log/checkpoint') old ??= body;
      return body;
    };
    expect(await misledLog()).toMatchObject({ code: 0 });
    await fleet.hypha('node', 'add', 'node-9');
    proxy.tamper = ({ body }) => body;
    expect(await misledLog()).toMatchObject({ code: 0 });
    proxy.tamper = ({ path, body }) => (path === '/v1/log/checkpoint' ? old : body);
    const { code, stdout, stderr } = await misledLog();
    expect({ code, stdout }).toMatchObject({
      code: 3,
      stdout: expect.stringContaining('E_LOG_FORK'),
    });
    const folder = join(misled, 'checkpoints', 'evidence');
    const [evidence = ''] = readdirSync(folder);
    expect(stderr).toContain(`both checkpoints are kept in ${join(folder, evidence)}`);
    const kept = JSON.parse(readFileSync(join(folder, evidence), 'utf8'));
    expect(kept.theirs).toBe(Object(old).checkpoint);
    // What was seen stays the measure.
    proxy.tamper = ({ body }) => body;
    expect(linesOf(await misledLog()).at(-1)).toContain('consistent with');
  });
});

describe('a bundle', () => {
  let bundle: Extract<AuditBundle, { v: 2 }>;
  let genesis: string;

  beforeAll(async () => {
    const { code, stdout } = await fleet.hypha('audit', 'export', run);
    expect(code).toBe(0);
    bundle = JSON.parse(stdout);
    genesis = JSON.parse(readFileSync(join(fleet.state, 'context.json'), 'utf8')).genesis;
  });

  /** In a folder that knows no fleet. */
  async function verify(changed: unknown, hash = genesis): Promise<CliResult> {
    const folder = mkdtempSync(join(tmpdir(), 'hypha-auditor-'));
    const file = join(folder, 'bundle.json');
    writeFileSync(file, JSON.stringify(changed));
    const result = await fleet.hyphaIn(folder, 'audit', 'verify', file, '--genesis', hash);
    rmSync(folder, { recursive: true });
    return result;
  }

  test('is verified by somebody who has nothing but it and the genesis hash', async () => {
    const { code, stdout, stderr } = await verify(bundle);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/ok {2}the ledger signed the log of \d+ entries/);
    expect(stdout).toMatch(/ok {2}receipt 3 is signed .*, entry \d+ of the log$/m);
    expect(linesOf({ code, stdout, stderr }).at(-1)).toBe('receipt verified');
  });

  test('of version 1 is verified, and says what it does not prove', async () => {
    const { replaced: _, checkpoint: __, proofs: ___, ...rest } = bundle;
    const { code, stdout } = await verify({ ...rest, v: 1 });
    expect({ code, stdout }).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('--  a bundle of version 1 carries no proof from the log'),
    });
  });

  test.for([
    ['of another fleet', () => [bundle, '0'.repeat(64)], 'genesis: E_AUTHORITY'],
    [
      'that withholds an authority update',
      () => [{ ...bundle, authority: bundle.authority.slice(0, -1) }],
      'checkpoint: E_',
    ],
    [
      'whose receipt is said to be elsewhere in the log',
      () => [
        {
          ...bundle,
          proofs: bundle.proofs.map((entry, at, { length }) =>
            at === length - 1 ? { ...entry, index: entry.index - 1 } : entry,
          ),
        },
      ],
      'receipt: E_PROOF',
    ],
    [
      'with another journal',
      () => [{ ...bundle, journal: bundle.journal.map((event) => ({ ...event, at: 1 })) }],
      'journal: E_CONFLICT',
    ],
  ] as const)('%s is refused by the name of what does not hold', async ([, change, says]) => {
    const [changed, hash] = change() as [unknown, string?];
    const { code, stdout } = await verify(changed, hash);
    expect({ code, stdout }).toMatchObject({
      code: 3,
      stdout: expect.stringContaining(`NO  ${says}`),
    });
    expect(stdout.trimEnd().endsWith('receipt NOT verified')).toBe(true);
  });
});
