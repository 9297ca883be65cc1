/**
 * Which work a key or a node had a part in, as the coordinator tells it. What it leaves out cannot be seen
 * here; what it makes up is of no harm.
 */
import type { RunsClient } from '@hypha/client';
import {
  type DeploymentView,
  type Envelope,
  isHyphaError,
  isTerminal,
  type RunView,
  type ScriptPayload,
} from '@hypha/protocol';
import { allPages, type Session } from './session.ts';
import { readScriptPayload } from './submission.ts';

/** What a revoked key or node is looked for in. */
export type PartOf = (work: {
  readonly keyids: readonly string[];
  readonly node: string;
}) => boolean;

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
  async listActive(isPart: PartOf): Promise<RunView[]> {
    const reader = this.#session.coordinator();
    const pages = ACTIVE_STATES.map((state) =>
      allPages((cursor) => reader.listRuns({ state, cursor, limit: 500 }), ITEMS_MAX),
    );
    const runs = (await Promise.all(pages)).flat();
    return await this.#filter(runs, reader, isPart);
  }

  /** Runs of these that have ended meanwhile, and those that have not. */
  async readAgain(runs: readonly RunView[]): Promise<RunView[]> {
    const reader = this.#session.coordinator();
    return await inGroups(runs, (run) =>
      isTerminal(run.state) ? Promise.resolve(run) : reader.run(run.run),
    );
  }

  /** By deployment and node. */
  async listTouched(isPart: PartOf): Promise<TouchedWork[]> {
    const reader = this.#session.coordinator();
    const deployments: DeploymentView[] = await allPages(
      (cursor) => reader.listDeployments({ cursor, limit: 500 }),
      ITEMS_MAX,
    );
    const runs = deployments.flatMap((deployment) => deployment.runs);
    const touched = await this.#filter(runs, reader, isPart);
    return await inGroups(touched, (run) => this.#describe(run, reader));
  }

  async #filter(runs: readonly RunView[], reader: RunsClient, isPart: PartOf): Promise<RunView[]> {
    const parts = await inGroups(runs, async (run) => {
      const envelope = await this.#envelope(run, reader);
      const keyids = envelope?.signatures.map(({ keyid }) => keyid) ?? [];
      return isPart({ keyids, node: run.node }) ? [run] : [];
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
