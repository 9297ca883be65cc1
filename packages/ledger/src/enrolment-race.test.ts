import { join } from 'node:path';
import { nodeVerifier as verifier } from '@hypha/protocol/node';
import { openStore } from '@hypha/store';
import { expect, test } from 'vitest';
import { AuthorityChain } from './authority-chain.ts';
import { ChallengeBook } from './challenge-book.ts';
import { Enrolments } from './enrolments.ts';
import { EntryIntake } from './entry-intake.ts';
import { LEDGER_MIGRATIONS, type LedgerDb, type NodeRow } from './ledger-schema.ts';
import { LogEntries } from './log-entries.ts';
import { LogTree } from './log-tree.ts';
import { NodeRegistry } from './node-registry.ts';
import { PendingNodes } from './pending-nodes.ts';
import { Fleet, Machine, temporaryState } from './testing/ledger-fixture.ts';

/** Something happens between the judgement of an enrolment and its write. */
class InterruptedRegistry extends NodeRegistry {
  interrupt: (() => Promise<unknown>) | undefined;

  override async findByName(name: string): Promise<NodeRow | undefined> {
    const { interrupt } = this;
    this.interrupt = undefined;
    await interrupt?.();
    return await super.findByName(name);
  }
}

async function openRig() {
  const state = await temporaryState();
  const store = await openStore<LedgerDb>({
    file: join(state.path, 'ledger.db'),
    migrations: LEDGER_MIGRATIONS,
  });
  const fleet = new Fleet();
  const nowMs = fleet.nowMs;
  const entries = new LogEntries({ store, tree: new LogTree({ store, verifier }), verifier });
  const authority = await AuthorityChain.open({ store, entries, verifier, nowMs }, fleet.genesis);
  const append = async (change: Parameters<Fleet['update']>[0]) => {
    const envelope = fleet.update(change);
    await authority.append(envelope);
    fleet.authority = fleet.authority.apply(envelope);
  };
  await append(fleet.grant(fleet.admin, 'admin'));
  const pending = new PendingNodes({ verifier, nowMs, isRevoked: () => false });
  const nodes = new InterruptedRegistry({
    store,
    verifier,
    nowMs,
    pending,
    reportIntervalMs: 1000,
  });
  const challenges = new ChallengeBook(nowMs);
  const deps = { store, entries, authority, nodes, verifier, nowMs };
  const intake = new EntryIntake(deps);
  const enrolments = new Enrolments({ ...deps, challenges, pending });
  const machine = new Machine();
  const admission = fleet.admission();
  await intake.append(admission.envelope);
  const statement = machine.enrolment(admission, challenges.issue().challenge, fleet.nowSeconds);
  return {
    ...{ fleet, append, nodes, machine, entries },
    enrol: () => enrolments.enrol(statement, '127.0.0.1'),
    [Symbol.asyncDispose]: async () => {
      await store.close();
      await state[Symbol.asyncDispose]();
    },
  };
}

test('a node that is revoked while it enrols is never written', async () => {
  await using rig = await openRig();
  rig.nodes.interrupt = () =>
    rig.append({ type: 'revoke-node', node: rig.machine.id, reason: 'stolen' });
  await expect(rig.enrol()).rejects.toMatchObject({ code: 'E_KEY_REVOKED' });
  expect(await rig.nodes.findById(rig.machine.id)).toBeUndefined();
});

test('an admin who is revoked while its node enrols has let nobody in', async () => {
  await using rig = await openRig();
  const { keyid } = rig.fleet.admin;
  rig.nodes.interrupt = () => rig.append({ type: 'revoke', keyid, reason: 'left' });
  await expect(rig.enrol()).rejects.toMatchObject({ code: 'E_KEY_REVOKED' });
  expect(await rig.nodes.findById(rig.machine.id)).toBeUndefined();
});

test('a change that takes nothing from the node does not stop it', async () => {
  await using rig = await openRig();
  const other = new Machine();
  rig.nodes.interrupt = () => rig.append({ type: 'revoke-node', node: other.id, reason: 'old' });
  expect(await rig.enrol()).toMatchObject({ id: rig.machine.id, state: 'ready' });
});
