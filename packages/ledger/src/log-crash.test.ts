import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import type { LedgerClient } from '@hypha/client';
import { type Checkpoint, checkExtends } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { expect, test } from 'vitest';
import {
  Fleet,
  type LedgerProcess,
  spawnLedger,
  temporaryState,
} from './testing/ledger-fixture.ts';
import {
  appendAdmissions,
  nameLedgerKey,
  openLedger,
  readCheckpoint,
  tamper,
} from './testing/log-fixture.ts';

/** Reads checkpoints until the ledger is gone. */
async function readWhileAlive(
  fleet: Fleet,
  client: LedgerClient,
  seen: Checkpoint[],
): Promise<void> {
  for (;;) {
    try {
      seen.push(await readCheckpoint(fleet, client));
    } catch {
      return;
    }
  }
}

/** Appends in parallel and kills the ledger once so many were answered. */
async function killWhileAppending(
  ledger: LedgerProcess,
  fleet: Fleet,
  after: number,
): Promise<number> {
  let answered = 0;
  let killed: Promise<unknown> | undefined;
  const admissions = Array.from({ length: 4 * after }, () => fleet.admission().envelope);
  await Promise.allSettled(
    admissions.map(async (envelope) => {
      await ledger.client.appendEntry(envelope);
      answered++;
      if (answered === after) killed = ledger.kill('SIGKILL');
    }),
  );
  await killed;
  return answered;
}

test('whenever the ledger is killed, its log extends every checkpoint it had handed out', async () => {
  await using state = await temporaryState();
  const fleet = new Fleet();
  const seen: Checkpoint[] = [];
  let appended = 0;
  for (const after of [5, 40, 90, 'not at all'] as const) {
    await using ledger = await spawnLedger(state.path, fleet.genesis);
    const { client } = ledger;
    if (appended === 0) {
      await fleet.append(client, fleet.grant(fleet.admin, 'admin'));
      await nameLedgerKey(fleet, client);
      appended = 3;
    }
    const newest = await readCheckpoint(fleet, client);
    expect(newest.size).toBeGreaterThanOrEqual(appended);
    for (const older of seen) {
      const { proof } = await client.consistency({ from: older.size, to: newest.size });
      checkExtends(nodeVerifier, older, newest, proof);
    }
    seen.push(newest);
    if (after === 'not at all') break;
    const reading = readWhileAlive(fleet, client, seen);
    appended += await killWhileAppending(ledger, fleet, after);
    await reading;
  }
  expect(new Set(seen.map(({ size }) => size)).size).toBeGreaterThan(3);
});

test('a flipped byte in a stored entry stops the process at start, with the entry and no stack trace', async () => {
  await using state = await temporaryState();
  const fleet = new Fleet();
  {
    await using ledger = await openLedger(join(state.path, 'ledger'), fleet);
    await fleet.append(ledger.client, fleet.grant(fleet.admin, 'admin'));
    await appendAdmissions(fleet, ledger.client, 5);
  }
  tamper(
    join(state.path, 'ledger'),
    `update entries set envelope = replace(envelope, '"sig":"', '"sig": "') where position = 3`,
  );
  const genesis = join(state.path, 'genesis.json');
  await writeFile(genesis, JSON.stringify(fleet.genesis));
  const { code, stderr } = await runToEnd([
    ...['--state', join(state.path, 'ledger'), '--port', '0', '--genesis', genesis],
    ...['--log-level', 'error'],
  ]);
  expect(code).toBe(78);
  const [first, ...rest] = stderr.trim().split('\n');
  expect(first).toMatch(/^--state: .*\/ledger: entry 3 is not what was appended$/);
  expect(rest.join('\n')).toMatch(
    /^leaf stored: .*\nleaf computed: .*\nentry stored: .*\nkeep this state/,
  );
  expect(stderr).not.toMatch(/^\s+at /m);
});

test('a key file that holds no key stops the process with what is wrong', async () => {
  await using state = await temporaryState();
  const fleet = new Fleet();
  const folder = join(state.path, 'ledger');
  {
    await using ledger = await openLedger(folder, fleet);
    await ledger.client.genesis();
  }
  await writeFile(join(folder, 'ledger.pem'), 'no key\n');
  const { code, stderr } = await runToEnd(['--state', folder, '--port', '0']);
  expect(code).toBe(78);
  expect(stderr).toMatch(/^--state: .*\/ledger: ledger.pem: cannot read a private key/m);
});

async function runToEnd(args: readonly string[]): Promise<{ code: unknown; stderr: string }> {
  const main = fileURLToPath(new URL('./main.ts', import.meta.url));
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = once(child, 'exit');
  const stderr = await text(child.stderr);
  const [code] = await exited;
  return { code, stderr };
}
