/** What a run that arrives takes up in the store. */
import type { ScriptPayload } from '@hypha/protocol';
import type { Admission } from './run-admission.ts';
import type { RunHead } from './run-head.ts';
import { dueOf } from './run-standing.ts';

/** The row of a run that arrives, as its events so far have left it. */
export function runRow(
  admission: Admission,
  { seq, hash, fold }: RunHead,
  cancelRequestedAt: number | null = null,
) {
  const { run, payload, digest, envelope, source, keyids } = admission;
  return {
    run,
    digest,
    revision: payload.id,
    realm: payload.realm,
    deployment: payload.deployment,
    generation: payload.generation,
    mode: payload.mode,
    envelope: JSON.stringify(envelope),
    source,
    acceptedAt: fold.acceptedAt ?? 0,
    expSeconds: payload.exp,
    epoch: 1,
    holder: null,
    bootId: null,
    seq,
    head: hash,
    state: fold.state,
    steps: 0,
    startedAt: null,
    endedAt: fold.endedAt,
    problem: fold.problem === null ? null : JSON.stringify(fold.problem),
    simulated: 0,
    onFailure: payload.onFailure,
    deleteData: JSON.stringify(payload.deleteData),
    message: payload.message,
    due: dueOf({ state: fold.state, seq }),
    told: 0,
    keyids: JSON.stringify(keyids),
    cancelRequestedAt,
    wakeAt: null,
  };
}

/** Plans and tasks are no revision of what the deployment is to be: they take no number and lose none. */
export function takesGeneration({ mode }: ScriptPayload): boolean {
  return mode === 'apply' || mode === 'destroy';
}

/** The id may come back under no other digest, a nonce under no other of the same key. */
export function replayValues(payload: ScriptPayload, keyids: readonly string[]): string[] {
  return [`id ${payload.id}`, ...keyids.map((keyid) => `nonce ${keyid} ${payload.nonce}`)];
}
