import { type Envelope, envelopeDigest, HyphaError } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { createFleet, createKey, signedScript } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { RevisionSigners } from './revision-signers.ts';

const fleet = createFleet();
const { authority, operator } = fleet;
const draft = { nodes: [`node_${'a'.repeat(32)}`] };
const envelope = signedScript(fleet, { draft });
const run = {
  run: `run_${'a'.repeat(26)}`,
  envelopeDigest: envelopeDigest(nodeVerifier, envelope, 'script'),
};

/** Asks a coordinator that answers so, more than once. */
async function ask(answer: () => Envelope) {
  let asked = 0;
  const reader = {
    envelope: async () => {
      asked++;
      return answer();
    },
  };
  const signers = new RevisionSigners(reader, nodeVerifier);
  await signers.prepare([run, run], authority);
  return { found: await signers.find(run, authority), asked, reason: signers.reason };
}

const refuse = (code: 'E_NOT_FOUND' | 'E_UNAVAILABLE' | 'E_FORBIDDEN') => () => {
  throw new HyphaError(code, `no: ${code}`);
};

test('are those of the envelope that the receipt names, asked for once', async () => {
  expect(await ask(() => envelope)).toEqual({
    found: [operator.keyid],
    asked: 1,
    reason: undefined,
  });
});

const lies: readonly (readonly [string, () => Envelope, RegExp])[] = [
  ['another envelope', () => signedScript(fleet, { draft }), /showed another envelope/],
  ['one by a stranger', () => signedScript(fleet, { draft, signers: [createKey()] }), /know/],
  ['one with other bytes', () => ({ ...envelope, payload: 'e30=' }), /did not sign/],
  ['none', refuse('E_FORBIDDEN'), /^no: E_FORBIDDEN$/],
];

test.for(lies)('are not known when it shows %s, and that is said', async ([, answer, why]) => {
  expect(await ask(answer)).toEqual({
    found: null,
    asked: 1,
    reason: expect.stringMatching(why),
  });
});

test('are not known once the envelope is gone', async () => {
  expect(await ask(refuse('E_NOT_FOUND'))).toEqual({ found: null, asked: 1, reason: undefined });
});

test('are not asked for again while the coordinator is away', async () => {
  const away = await ask(refuse('E_UNAVAILABLE'));
  expect(away).toEqual({ found: null, asked: 1, reason: 'no: E_UNAVAILABLE' });
});
