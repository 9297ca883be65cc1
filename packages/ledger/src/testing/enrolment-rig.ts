/** Enrolments of every form, for tests of who is let in. */
import type { LedgerClient } from '@hypha/client';
import {
  base64,
  type Envelope,
  type NodeView,
  type PayloadInput,
  type Signer,
  signEnrolment,
} from '@hypha/protocol';
import { FACTS, type Machine, type TestLedger } from './ledger-fixture.ts';

/** A statement with a fresh challenge; `replaced` signs it too. */
export async function statementOf(
  t: TestLedger,
  machine: Machine,
  changes: Partial<PayloadInput<'enrol'>> = {},
  replaced?: Signer,
): Promise<Envelope> {
  const { challenge } = await t.client.challenge();
  return signEnrolment(
    {
      v: 1,
      publicKey: base64(machine.signer.publicKey),
      sealKey: base64(new Uint8Array(32).fill(9)),
      challenge,
      bootId: 'boot-1',
      iat: t.fleet.nowSeconds,
      facts: FACTS,
      ...changes,
    },
    machine.signer,
    replaced,
  );
}

export async function enrolBy(
  t: TestLedger,
  machine: Machine,
  changes: Partial<PayloadInput<'enrol'>> = {},
  replaced?: Signer,
): Promise<NodeView> {
  return await t.client.enrol(await statementOf(t, machine, changes, replaced));
}

export async function pendingIds(client: LedgerClient): Promise<string[]> {
  const { items } = await client.listNodes({ state: 'pending' });
  return items.map(({ id }) => id).sort();
}
