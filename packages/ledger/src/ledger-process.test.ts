import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { Fleet, Machine, spawnLedger, temporaryState } from './testing/ledger-fixture.ts';

describe('the ledger process', () => {
  test('has after kill -9 everything it answered 2xx to', async () => {
    await using state = await temporaryState();
    const fleet = new Fleet();
    const machine = new Machine();
    const receipts = [1, 2, 3].map((n) => machine.receipt(n, String(n).repeat(64)));
    {
      await using ledger = await spawnLedger(state.path, fleet.genesis);
      const { client } = ledger;
      await fleet.append(client, fleet.grant(fleet.admin, 'admin'));
      const admission = fleet.admission();
      await client.appendEntry(admission.envelope);
      const { challenge } = await client.challenge();
      await client.enrol(machine.enrolment(admission, challenge, fleet.nowSeconds));
      for (const { envelope } of receipts) await client.appendEntry(envelope);
      expect(await ledger.kill('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' });
    }
    await using ledger = await spawnLedger(state.path, fleet.genesis);
    expect((await ledger.client.authority()).head.hash).toBe(fleet.authority.head);
    const enrolled = await ledger.client.listEntries({ kind: 'enrol', node: machine.id });
    expect(enrolled.items).toHaveLength(1);
    const { items } = await ledger.client.listEntries({ kind: 'receipt' });
    expect(items.map(({ envelope }) => envelope)).toEqual(receipts.map((r) => r.envelope));
    const again = await ledger.client.appendEntry(receipts[0]?.envelope ?? fleet.genesis);
    expect(again.existing).toBe(true);
  });

  test('keeps every answered receipt and a whole index when it is killed in the middle of many', async () => {
    await using state = await temporaryState();
    const fleet = new Fleet();
    const machines = ['edge-1', 'edge-2', 'edge-3', 'edge-4'].map((name) => ({
      name,
      machine: new Machine(),
    }));
    const answered: string[] = [];
    {
      await using ledger = await spawnLedger(state.path, fleet.genesis);
      const { client } = ledger;
      await fleet.append(client, fleet.grant(fleet.admin, 'admin'));
      for (const { name, machine } of machines) {
        const admission = fleet.admission({ name });
        await client.appendEntry(admission.envelope);
        const { challenge } = await client.challenge();
        await client.enrol(machine.enrolment(admission, challenge, fleet.nowSeconds));
      }
      await Promise.allSettled(
        machines.map(async ({ machine }) => {
          for (let n = 1; n <= 100; n++) {
            const { envelope } = machine.receipt(n, n.toString(16).padStart(64, '0'));
            answered.push((await client.appendEntry(envelope)).digest);
            if (answered.length === 100) await ledger.kill('SIGKILL');
          }
        }),
      );
    }
    expect(answered.length).toBeLessThan(400);
    await using ledger = await spawnLedger(state.path, fleet.genesis);
    const { items } = await ledger.client.listEntries({ limit: 500 });
    const kept = new Set(items.map(({ digest }) => digest));
    expect(answered.filter((digest) => !kept.has(digest))).toEqual([]);
    expect(items.map(({ index }) => index)).toEqual(items.map((_, index) => index));
  });

  test('stops with 0 on SIGTERM', async () => {
    await using state = await temporaryState();
    await using ledger = await spawnLedger(state.path, new Fleet().genesis);
    expect(await ledger.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  });

  test('stops when the parent that spawned it is gone', async () => {
    await using state = await temporaryState();
    await using ledger = await spawnLedger(state.path, new Fleet().genesis);
    const exited = once(ledger.child, 'exit');
    ledger.child.disconnect();
    expect(await exited).toEqual([0, null]);
  });

  test.for([
    ['a bad value', ['--port', '99999'], /^--port: 99999: /m],
    ['an unknown flag', ['--prot', '1'], /^--prot: : unknown flag/],
    ['no state', ['--port', '0'], /^--state: \(not set\): is required$/m],
    [
      'a genesis that is not there',
      ['--state', '/nonexistent', '--genesis', '/nonexistent/g'],
      /^--genesis: \/nonexistent\/g: /,
    ],
  ] as const)('exits 78 and says why on %s', async ([, args, line]) => {
    const main = fileURLToPath(new URL('./main.ts', import.meta.url));
    const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
    const exited = once(child, 'exit');
    const stderr = await text(child.stderr);
    expect(await exited).toEqual([78, null]);
    expect(stderr).toMatch(line);
  });
});
