/** Signed scripts for a fleet, sent to its node and awaited to their receipts. */
import { randomBytes } from 'node:crypto';
import type { NodeClient } from '@hypha/client';
import {
  buildScriptPayload,
  type Envelope,
  HyphaError,
  JournalEvent,
  type ScriptDraft,
  type Signer,
  signScript,
} from '@hypha/protocol';
import { nodeVerifier, readKeyFile } from '@hypha/protocol/node';
import type { Fleet } from '../../test/fixtures/fleet.ts';

export class SignedRuns {
  readonly #fleet: Fleet;
  readonly #operator: Signer;
  readonly #authority: { seq: number; head: string };
  readonly node: NodeClient;

  private constructor(fleet: Fleet, authority: { seq: number; head: string }) {
    this.#fleet = fleet;
    this.#operator = readKeyFile(fleet.line.operator.keyFile);
    this.#authority = authority;
    this.node = fleet.node;
  }

  static async open(fleet: Fleet): Promise<SignedRuns> {
    const { head } = await fleet.ledger.authority();
    return new SignedRuns(fleet, { seq: head.seq, head: head.hash });
  }

  sign(draft: Omit<ScriptDraft, 'nodes' | 'authority'>): Envelope {
    const [node] = this.#fleet.line.nodes;
    const payload = buildScriptPayload(
      nodeVerifier,
      { ...draft, nodes: [node?.id ?? ''], authority: this.#authority },
      { nowMs: Date.now(), randomBytes: (count) => new Uint8Array(randomBytes(count)) },
    );
    return signScript(payload, [this.#operator]);
  }

  /** Submits and waits for the receipt; answers the run's events. Throws when it did not succeed. */
  async complete(envelope: Envelope): Promise<JournalEvent[]> {
    const { runs } = await this.node.submit({ envelope });
    const run = runs[0]?.run ?? '';
    const events: JournalEvent[] = [];
    const signal = AbortSignal.timeout(120_000);
    for await (const { data, event } of this.node.runEvents(run, { signal })) {
      if (event !== 'state') events.push(JournalEvent.parse(JSON.parse(data)));
    }
    const last = events.at(-1)?.body;
    if (last?.type !== 'finished' || last.state !== 'succeeded') {
      throw new HyphaError('E_INTERNAL', `run ${run} did not succeed`, { details: last });
    }
    await this.node.receipt(run);
    return events;
  }
}
