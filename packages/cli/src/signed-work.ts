/**
 * Which work a key or a node had a part in. The coordinator says who signed what; what it leaves out is found by
 * the receipts in the log, and what it makes up is of no harm.
 */
import type { RunsClient } from '@hypha/client';
import {
  type DeploymentView,
  type Envelope,
  fromBase64,
  isHyphaError,
  isTerminal,
  parseStrictJson,
  ReceiptPayload,
  type RunView,
  type ScriptPayload,
} from '@hypha/protocol';
import { allPages, type Session } from './session.ts';
import { readScriptPayload } from './submission.ts';

/** What is looked for: a key among the signers, or a node that ran it. */
export type Revoked =
  | { readonly keyid: string; readonly node?: undefined }
  | { readonly node: string; readonly keyid?: undefined };

/** The newest revision of a deployment on one node. */
export interface TouchedWork {
  /** `realm/name`. */
  readonly deployment: string;
  readonly generation: number;
  readonly mode: ScriptPayload['mode'];
  readonly state: RunView['state'];
  readonly node: string;
  readonly run: string;
  /** `kind name`, as the run committed them. */
  readonly resources: readonly string[];
  /** Names the script declares; to be given new values. */
  readonly secrets: readonly string[];
}

/** Work that a receipt tells of and the coordinator does not: nobody says who signed it. */
export interface UnshownWork {
  readonly deployment: string;
  readonly generation: number;
  readonly node: string;
  readonly run: string;
}

const AT_ONCE = 8;
const ITEMS_MAX = 20_000;
const ACTIVE_STATES = ['accepted', 'queued', 'running', 'undoing'] as const;

/** Envelopes by their digest: the runs of a revision share one. */
export class WorkReader {
  readonly #session: Session;
  readonly #envelopes = new Map<string, Promise<Envelope | undefined>>();

  constructor(session: Session) {
    this.#session = session;
  }

  /** Runs that have not ended. */
  async listActive(revoked: Revoked): Promise<RunView[]> {
    const reader = this.#session.coordinator();
    const pages = ACTIVE_STATES.map((state) =>
      allPages((cursor) => reader.listRuns({ state, cursor, limit: 500 }), ITEMS_MAX),
    );
    const runs = (await Promise.all(pages)).flat();
    return await this.#filter(runs, reader, revoked);
  }

  /** Runs of these that have ended meanwhile, and those that have not. */
  async readAgain(runs: readonly RunView[]): Promise<RunView[]> {
    const reader = this.#session.coordinator();
    return await inGroups(runs, (run) =>
      isTerminal(run.state) ? Promise.resolve(run) : reader.run(run.run),
    );
  }

  /** By deployment and node. */
  async listTouched(
    revoked: Revoked,
  ): Promise<{ readonly touched: TouchedWork[]; readonly unshown: UnshownWork[] }> {
    const reader = this.#session.coordinator();
    const deployments: DeploymentView[] = await allPages(
      (cursor) => reader.listDeployments({ cursor, limit: 500 }),
      ITEMS_MAX,
    );
    const newest = deployments.flatMap((deployment) => deployment.runs);
    const hidden = (await this.#listReceipts())
      .filter((receipt) => isBehind(receipt, newest))
      .filter(({ node }) => revoked.node === undefined || revoked.node === node);
    const found = await inGroups(hidden, ({ run }) => orGone(() => reader.run(run)));
    const shown = found.filter((run) => run !== undefined);
    const parts = await this.#filter([...newest, ...shown], reader, revoked);
    return {
      touched: await inGroups(parts, (run) => this.#describe(run, reader)),
      unshown: hidden
        .filter((_receipt, index) => found[index] === undefined)
        .map(({ realm, deployment, generation, node, run }) => ({
          ...{ deployment: `${realm}/${deployment}`, generation, node, run },
        })),
    };
  }

  /** The newest of each deployment on each node, but for those that removed it. */
  async #listReceipts(): Promise<ReceiptPayload[]> {
    const ledger = this.#session.ledger();
    const entries = await allPages((cursor) =>
      ledger.listEntries({ kind: 'receipt', cursor, limit: 500 }),
    );
    const newest = new Map<string, ReceiptPayload>();
    for (const { envelope } of entries) {
      const receipt = readReceipt(envelope);
      if (receipt === undefined || (receipt.mode !== 'apply' && receipt.mode !== 'destroy'))
        continue;
      const key = `${receipt.node} ${receipt.realm}/${receipt.deployment}`;
      const known = newest.get(key);
      if (known === undefined || known.generation <= receipt.generation) newest.set(key, receipt);
    }
    return [...newest.values()].filter(({ mode }) => mode === 'apply');
  }

  async #filter(
    runs: readonly RunView[],
    reader: RunsClient,
    revoked: Revoked,
  ): Promise<RunView[]> {
    if (revoked.keyid === undefined) return runs.filter(({ node }) => node === revoked.node);
    const parts = await inGroups(runs, async (run) => {
      const envelope = await this.#envelope(run, reader);
      const signed = envelope?.signatures.some(({ keyid }) => keyid === revoked.keyid) ?? false;
      return signed ? [run] : [];
    });
    return parts.flat();
  }

  async #describe(run: RunView, reader: RunsClient): Promise<TouchedWork> {
    const envelope = await this.#envelope(run, reader);
    const payload = envelope === undefined ? undefined : readScriptPayload(envelope);
    return {
      deployment: `${run.realm}/${run.deployment}`,
      generation: run.generation,
      mode: run.mode,
      state: run.state,
      node: run.node,
      run: run.run,
      resources: await committedResources(run, reader),
      secrets: await sealedNames(payload, run.node),
    };
  }

  #envelope(run: RunView, reader: RunsClient): Promise<Envelope | undefined> {
    const known = this.#envelopes.get(run.envelopeDigest);
    if (known !== undefined) return known;
    const asked = orGone(() => reader.envelope(run.run));
    this.#envelopes.set(run.envelopeDigest, asked);
    return asked;
  }
}

/** The coordinator shows nothing of this deployment on this node that is as new. */
function isBehind(receipt: ReceiptPayload, newest: readonly RunView[]): boolean {
  return !newest.some(
    ({ realm, deployment, node, generation }) =>
      realm === receipt.realm &&
      deployment === receipt.deployment &&
      node === receipt.node &&
      generation >= receipt.generation,
  );
}

/** Undefined for an entry that is none: whoever audits the log says so. */
function readReceipt(envelope: Envelope): ReceiptPayload | undefined {
  try {
    return ReceiptPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
  } catch {
    return undefined;
  }
}

async function committedResources(run: RunView, reader: RunsClient): Promise<string[]> {
  const events = await orGone(() =>
    allPages((cursor) => reader.journal(run.run, { cursor, limit: 500 }), ITEMS_MAX),
  );
  const committed = events?.find(({ body }) => body.type === 'committed')?.body;
  if (committed?.type !== 'committed') return [];
  return committed.desired.map(({ kind, name }) => `${kind} ${name}`);
}

async function sealedNames(payload: ScriptPayload | undefined, node: string): Promise<string[]> {
  if (payload?.script === undefined || payload.secrets[node] === undefined) return [];
  // Only here: the parser would slow every other command down.
  const { readSecretNames } = await import('./compile/script-secrets.ts');
  return readSecretNames(payload.script.source);
}

/** Old runs are dropped; what they held then is not there to be told. */
async function orGone<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (isHyphaError(error, 'E_NOT_FOUND')) return undefined;
    throw error;
  }
}

async function inGroups<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let at = 0; at < items.length; at += AT_ONCE) {
    results.push(...(await Promise.all(items.slice(at, at + AT_ONCE).map(work))));
  }
  return results;
}
