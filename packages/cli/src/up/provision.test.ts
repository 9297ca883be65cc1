import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { LedgerClient } from '@hypha/client';
import { checkpointOrigin, type Envelope, fromBase64, verifyCheckpoint } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { openTempDir } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { openState } from '../state-layout.ts';
import { ensureAuthority, ensureGenesis, ensureKeys } from './provision.ts';

const nowSeconds = () => Math.floor(Date.now() / 1000);

/** A state folder as `up` makes it, and the ledger of it. */
async function openFleet() {
  const folder = await openTempDir();
  const state = openState(folder.path);
  const keys = ensureKeys(state);
  const genesis = ensureGenesis(state, keys.root, nowSeconds());
  const main = fileURLToPath(import.meta.resolve('@hypha/ledger/main'));
  const child = spawn(
    process.execPath,
    [main, '--state', state.ledger, '--genesis', state.genesis, '--port', '0'],
    { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] },
  );
  const exited = once(child, 'exit');
  const [message] = await Promise.race([once(child, 'message'), exited]);
  const { url } = (message as { ready: { url: string } }).ready;
  const ledger = new LedgerClient({ baseUrl: url });
  return {
    keys,
    genesis,
    ledger,
    [Symbol.asyncDispose]: async () => {
      await ledger.http.close();
      child.kill('SIGTERM');
      await exited;
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Loses the connection after so many updates were appended. */
class BreakingLedger extends LedgerClient {
  left: number;
  constructor(of: LedgerClient, left: number) {
    super(of.http);
    this.left = left;
  }
  override async appendAuthority(envelope: Envelope) {
    if (this.left === 0) throw new Error('the connection is gone');
    this.left--;
    return await super.appendAuthority(envelope);
  }
}

test('a new fleet names the key of its ledger, which then signs checkpoints', async () => {
  await using fleet = await openFleet();
  const { ledger, keys, genesis } = fleet;
  await expect(ledger.checkpoint()).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
  await ensureAuthority(ledger, keys, genesis, nowSeconds());
  const { publicKey } = await ledger.logKey();
  const { checkpoint } = await ledger.checkpoint();
  const trusted = { origin: checkpointOrigin(genesis), publicKey: fromBase64(publicKey) };
  const { head } = await ledger.authority();
  expect(verifyCheckpoint(nodeVerifier, checkpoint, trusted).authority).toEqual({
    seq: head.seq,
    head: head.hash,
  });
});

test('what was broken off at any update is finished by the next start, and then left alone', async () => {
  for (let updates = 0; updates < 4; updates++) {
    await using fleet = await openFleet();
    const { ledger, keys, genesis } = fleet;
    const breaking = new BreakingLedger(ledger, updates);
    await expect(ensureAuthority(breaking, keys, genesis, nowSeconds())).rejects.toThrow('gone');
    expect((await ledger.authority()).head.seq).toBe(updates);
    await ensureAuthority(ledger, keys, genesis, nowSeconds());
    await ensureAuthority(new BreakingLedger(ledger, 0), keys, genesis, nowSeconds());
    expect((await ledger.authority()).head.seq).toBe(4);
  }
});
