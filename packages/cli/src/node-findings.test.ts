import { FACTS } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { findingsOf } from './node-findings.ts';

test('what a node is alarmed by comes first, then what it lacks, then what is in order', () => {
  const clock = 'the clock is 120 s behind the ledger: fix NTP';
  const found = findingsOf('edge-1', {
    ...FACTS,
    sals: { ...FACTS.sals },
    alarms: [clock],
    protection: [
      { what: 'tls', ok: true, detail: 'not needed on loopback' },
      { what: 'core dumps', ok: false, detail: 'on', hint: 'ulimit -c 0' },
      { what: 'redis users', ok: true, detail: 'one for each role' },
    ],
  });
  expect(found).toEqual([
    { what: 'edge-1 alarm', state: 'warn', detail: clock },
    { what: 'edge-1 core dumps', state: 'warn', detail: 'on', hint: 'ulimit -c 0' },
    { what: 'edge-1', state: 'ok', detail: 'in order: tls, redis users' },
  ]);
});

test('a node that protects nothing says so', () => {
  expect(findingsOf('edge-1', { ...FACTS, sals: {}, protection: [] })).toEqual([
    { what: 'edge-1', state: 'ok', detail: 'in order: nothing' },
  ]);
});
