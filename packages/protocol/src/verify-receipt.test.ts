import { describe, expect, test } from 'vitest';
import { createFleet, FACTS, keyOf, NOW, refusalOf } from '../test/fleet.ts';
import { bundleOf } from '../test/run.ts';
import { signReport, verifyReceipt, verifyReport } from './index.ts';
import { nodeVerifier } from './node/index.ts';

const fleet = createFleet();
const { publicKey } = fleet.node;

describe('a receipt', () => {
  const { receipt } = bundleOf(fleet);

  test('is good under the key the node enrolled with', () => {
    const verified = verifyReceipt(nodeVerifier, { envelope: receipt, publicKey });
    expect(verified.payload).toMatchObject({ node: fleet.nodeId, state: 'succeeded', seq: 1 });
  });

  test('is refused under any other key', () => {
    const other = keyOf('other').publicKey;
    expect(
      refusalOf(() => verifyReceipt(nodeVerifier, { envelope: receipt, publicKey: other })).code,
    ).toBe('E_UNKNOWN_KEY');
  });

  test.for([
    ['another node', { node: `node_${'b'.repeat(32)}` }, 'run'],
    ['a run that envelope and node do not make', { run: `run_${'b'.repeat(26)}` }, 'run'],
  ] as const)('that names %s is E_CONFLICT', ([, changed]) => {
    const { receipt: envelope } = bundleOf(fleet, { receipt: changed });
    expect(refusalOf(() => verifyReceipt(nodeVerifier, { envelope, publicKey })).code).toBe(
      'E_CONFLICT',
    );
  });
});

describe('a report', () => {
  const free = { milliCpus: 1000, memoryBytes: 1, storageBytes: 1 };
  const report = (node = fleet.nodeId) =>
    signReport(
      {
        v: 1,
        node,
        seq: 1,
        bootId: 'b',
        uptimeMs: 1,
        at: NOW * 1000,
        facts: FACTS,
        reserved: free,
        free,
        runsActive: 0,
        authoritySeq: 2,
      },
      fleet.node,
    );

  test('of a node about itself is good', () => {
    const { payload } = verifyReport(nodeVerifier, { envelope: report(), publicKey });
    expect(payload.facts.hostname).toBe('edge-1');
  });

  test('of a node about another is E_CONFLICT', () => {
    const envelope = report(`node_${'b'.repeat(32)}`);
    expect(refusalOf(() => verifyReport(nodeVerifier, { envelope, publicKey }))).toEqual({
      code: 'E_CONFLICT',
      path: 'node',
    });
  });

  test('is no receipt', () => {
    expect(
      refusalOf(() => verifyReceipt(nodeVerifier, { envelope: report(), publicKey })).code,
    ).toBe('E_PAYLOAD_TYPE');
  });
});
