import {
  type Authority,
  type Envelope,
  HyphaError,
  isHyphaError,
  type OutboxItem,
  type OutboxResult,
  parseJsonAs,
  runIdOf,
  ScriptPayload,
  type Verifier,
  verifyEnvelope,
  verifyScript,
} from '@hypha/protocol';
import { readCancels } from './cancel-memory.ts';
import type { OutboxDeps } from './outbox-deps.ts';
import { newRun } from './run-record.ts';
import { learnedWrites, type SignedScript } from './submission-writes.ts';

/**
 * A run that reached its node on another path (design §9, `--via node`), so that it can be shown here.
 * The envelope must be signed by a key the authority knows or knew. What it may do to others is little:
 * its id and nonce are spent, and only a script that still verifies moves the deployment's generation.
 */
export async function learnRun(
  deps: OutboxDeps,
  node: string,
  item: Extract<OutboxItem, { type: 'run' }>,
): Promise<OutboxResult> {
  const { store, verifier, runs, changes, clock } = deps;
  if ((await runs.find(item.run)) !== undefined) return { status: 'ok' };
  const script = await readScript(deps, item.envelope);
  const { payload, digest } = script;
  const expected = runIdOf(verifier, digest, node);
  if (expected !== item.run) {
    throw new HyphaError('E_CONFLICT', `run ${item.run} is ${expected} by its envelope and node`);
  }
  if (!payload.aud.nodes.includes(node)) {
    throw new HyphaError('E_AUDIENCE', `revision ${payload.id} is not addressed to ${node}`);
  }
  const nowMs = clock.nowMs();
  const row = newRun({ run: item.run, node, digest, payload, nowMs });
  const cancels = await readCancels(store, digest);
  const acceptance = { store, changes, script, runs: [row], cancels, nowMs };
  await store.write(learnedWrites(acceptance, mayMark(deps, node, item.envelope)));
  changes.ring();
  return { status: 'ok' };
}

async function readScript(deps: OutboxDeps, envelope: Envelope): Promise<SignedScript> {
  const { verifier, authority, follower } = deps;
  try {
    return openScript(verifier, authority.get(), envelope);
  } catch (error) {
    if (!isHyphaError(error, 'E_UNKNOWN_KEY')) throw error;
    await follower.learnAuthority();
    if (await follower.freshen()) return openScript(verifier, authority.get(), envelope);
    // The node may know an authority update we cannot fetch now: later is early enough.
    throw new HyphaError('E_STALE_VIEW', 'cannot check who signed the run: the ledger is away', {
      cause: error,
    });
  }
}

/** Signatures by keys that are in the authority, revoked or not: this is history, not new work. */
function openScript(verifier: Verifier, authority: Authority, envelope: Envelope): SignedScript {
  const { payload, digest, keyids } = verifyEnvelope(verifier, {
    envelope,
    kind: 'script',
    keys: (keyid) => authority.findKey(keyid)?.publicKey,
  });
  return {
    digest,
    keyids,
    envelope,
    payload: parseJsonAs(ScriptPayload, payload, {
      code: 'E_PAYLOAD',
      what: `the script payload ${digest}`,
      integersOnly: true,
    }),
  };
}

function mayMark(deps: OutboxDeps, node: string, envelope: Envelope): boolean {
  const { verifier, authority, fleet, clock } = deps;
  try {
    verifyScript(verifier, {
      envelope,
      authority: authority.get(),
      profile: 'execute',
      nowSeconds: Math.floor(clock.nowMs() / 1000),
      node: fleet.get(node),
    });
    return true;
  } catch (error) {
    if (error instanceof HyphaError) return false;
    throw error;
  }
}
