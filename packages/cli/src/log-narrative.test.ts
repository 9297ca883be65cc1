import type { ReceiptPayload } from '@hypha/protocol';
import { createFleet, FACTS } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { describeEntry } from './log-narrative.ts';

const node = `node_${'a'.repeat(32)}` as ReceiptPayload['node'];
const narrator = { nameOf: (id: string) => (id === node ? 'edge-1' : id), signers: null };
const receipt: ReceiptPayload = {
  v: 1,
  run: `run_${'a'.repeat(26)}` as ReceiptPayload['run'],
  ...{
    envelopeDigest: '',
    node,
    realm: 'default',
    deployment: 'web',
    generation: 7,
    mode: 'apply',
  },
  ...{ state: 'succeeded', startedAt: 1, endedAt: 2, steps: 1, undone: 0, leftovers: [] },
  ...{ journalHead: '', prev: null, seq: 1, authoritySeq: 0 },
};
const leftovers: ReceiptPayload['leftovers'] = [
  { rid: 'r' as never, kind: 'volume', name: 'data', reason: 'busy' },
];
const ends: readonly (readonly [Partial<ReceiptPayload>, string])[] = [
  [{}, 'succeeded on edge-1 after 1 step (run_aaaaaaaa…)'],
  [
    { state: 'failed', code: 'E_HEALTH', steps: 4, undone: 3, leftovers },
    'failed on edge-1 with E_HEALTH after 4 steps, 3 undone, 1 left over (run_aaaaaaaa…)',
  ],
];

test.for(ends)('a run reads as how it ended: %j', ([end, says]) => {
  const statement = { kind: 'receipt', payload: { ...receipt, ...end } } as const;
  const entry = { statement, keyids: [] };
  expect(describeEntry(entry, { ...narrator, signers: ['olivia', 'rita'] })).toBe(
    `olivia and rita’s apply of default/web generation 7 ${says}`,
  );
  expect(describeEntry(entry, narrator)).toBe(
    `an unknown signer’s apply of default/web generation 7 ${says}`,
  );
});

test('what a signer chose freely does not steer a terminal', () => {
  const { authority } = createFleet();
  const [esc, bell, override] = ['\u001b', '\u0007', '\u202e'];
  const change = {
    type: 'revoke-node',
    node,
    reason: `${esc}[2Jgone${override}\n`,
  } as const;
  const payload = { v: 1, seq: 4, prev: authority.head, iat: 1, change } as const;
  const revoked = { statement: { kind: 'authority', payload }, keyids: ['ada'] } as const;
  expect(describeEntry(revoked, narrator)).toMatch(/: \?\[2Jgone\?\? \(authority 4\)$/);
  const facts = { ...FACTS, hostname: `${bell}host\r` };
  const key = 'A'.repeat(43);
  const enrolment = {
    v: 1,
    ...{ publicKey: `${key}=`, sealKey: `${key}=`, challenge: 'A'.repeat(22), bootId: '', iat: 1 },
    facts,
  } as const;
  const statement = { kind: 'enrol', payload: enrolment, node, isKnown: false } as const;
  expect(describeEntry({ statement, keyids: [] }, narrator)).toMatch(/ enrolled from \?host\?$/);
});
