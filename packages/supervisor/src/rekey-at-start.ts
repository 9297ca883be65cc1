import { rm } from 'node:fs/promises';
import { LedgerClient } from '@hypha/client';
import {
  findNextKey,
  type NodeKeys,
  openNodeKeys,
  readBoot,
  readFacts,
  rekey,
} from '@hypha/identity';
import { openJournal } from '@hypha/journal';
import type { Verifier } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { Clock } from './clock.ts';
import { LEDGER_RECEIPTS } from './receipt-delivery.ts';
import type { StateFolder } from './state-folder.ts';

export interface RekeyAtStartDeps {
  readonly folder: StateFolder;
  /** The node as it is. */
  readonly keys: NodeKeys;
  readonly ledgerUrl: string | undefined;
  readonly ca: string | undefined;
  readonly verifier: Verifier;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Takes the key that `hypha node rekey` has put beside the node's, before anything of the node is open. Only
 * at rest: what was signed for the old id must have ended, and what the old key signed must have been told, for
 * afterwards nobody takes either. When it cannot be now the node goes on as it was, and tries at the next start.
 */
export async function rekeyAtStart(deps: RekeyAtStartDeps, signal: AbortSignal): Promise<NodeKeys> {
  const { folder, keys, log, clock } = deps;
  try {
    const next = await findNextKey(folder.identity);
    if (next === undefined) return keys;
    const reason = await findUnrest(deps);
    if (reason !== undefined) {
      const ids = { node: keys.nodeId, next: next.node };
      log.warn({ ...ids, reason }, 'new node key waits for the next start');
      return keys;
    }
    await rekey(
      {
        ...deps,
        folder: folder.identity,
        // Without SALs, which are opened later: its first report says what it has.
        facts: () => readFacts({ storageBytes: 0, sals: {} }),
        boot: await readBoot(() => clock.nowMs()),
        connect: (baseUrl) => new LedgerClient({ baseUrl, ca: deps.ca }),
      },
      signal,
    );
  } catch (err) {
    log.error({ err, node: keys.nodeId }, 'node key stays as it was');
    return keys;
  }
  // Reports that wait were signed by the old key.
  await rm(folder.reports, { recursive: true, force: true });
  const renewed = await openNodeKeys(folder.identity, () => clock.nowMs());
  log.info({ node: renewed.nodeId, replaced: keys.nodeId }, 'node has a new key');
  return renewed;
}

async function findUnrest({
  folder,
  keys,
  verifier,
  clock,
}: RekeyAtStartDeps): Promise<string | undefined> {
  const journal = await openJournal({
    file: folder.journal,
    node: keys.nodeId,
    signer: keys.signer,
    verifier,
    nowMs: () => clock.nowMs(),
    authoritySeq: () => 0,
    useOf: () => null,
  });
  try {
    const unfinished = journal.listLanes().reduce((sum, { runs }) => sum + runs.length, 0);
    if (unfinished > 0) return `${unfinished} runs have not ended`;
    const [untold] = await journal.cursors.listBacklog(1);
    if (untold !== undefined) return `the coordinator does not know all of ${untold.run}`;
    const told = await journal.cursors.read(LEDGER_RECEIPTS.destination, LEDGER_RECEIPTS.topic);
    const [receipt] = await journal.runs.listReceipts(told, 1);
    return receipt === undefined ? undefined : 'the ledger does not have all receipts';
  } finally {
    await journal.close();
  }
}
