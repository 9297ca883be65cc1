/** After a revocation: who knows of it, what it stopped, and what is left to do by hand. */
import { setTimeout as delay } from 'node:timers/promises';
import { isHyphaError, isTerminal, type NodeView, type RunView } from '@hypha/protocol';
import { EXIT } from './exit-code.ts';
import { ago } from './output.ts';
import { type NodeKnowledge, showRevocation } from './revocation-report.ts';
import { allPages, type Session } from './session.ts';
import { type Revoked, WorkReader } from './signed-work.ts';

const POLL_MS = 500;

/** Looks before the update is sent: what is running then is what can be stopped. */
export class RevocationWatch {
  readonly #session: Session;
  readonly #revoked: Revoked;
  readonly #work: WorkReader;
  readonly #names = new Map<string, string>();
  /** Said once each: it is asked again and again. */
  readonly #remarks = new Set<string>();
  #runs: readonly RunView[] = [];

  private constructor(session: Session, revoked: Revoked) {
    this.#session = session;
    this.#revoked = revoked;
    this.#work = new WorkReader(session);
  }

  /** With the coordinator away nothing is known to run: a revocation must not wait for it. */
  static async begin(session: Session, revoked: Revoked): Promise<RevocationWatch> {
    const watch = new RevocationWatch(session, revoked);
    watch.#runs = (await watch.#unlessAway(() => watch.#work.listActive(revoked))) ?? [];
    return watch;
  }

  /**
   * Waits until every reachable node has this update, live on stderr, then reports. Answers the exit code.
   * @param seq of the revocation
   * @param except a node that has not to know: the revoked one
   */
  async finish(
    seq: number,
    { timeoutMs, except }: { readonly timeoutMs: number; readonly except?: string },
  ): Promise<number> {
    const deadline = performance.now() + timeoutMs;
    const told = new Set<string>();
    let nodes: NodeKnowledge[] | undefined;
    for (;;) {
      const heard = await this.#unlessAway(() => this.#nodes(seq));
      nodes = heard?.filter(({ id }) => id !== except) ?? nodes;
      await this.#tellRuns();
      for (const node of (nodes ?? []).filter(({ id, knows }) => knows && !told.has(id))) {
        told.add(node.id);
        this.#session.output.note(`${node.name} knows`);
      }
      const isOver = nodes !== undefined && isComplete(nodes, this.#runs);
      if (isOver || performance.now() >= deadline) {
        await this.#report(seq, nodes ?? [], isOver);
        return isOver ? EXIT.ok : EXIT.unavailable;
      }
      await delay(POLL_MS);
    }
  }

  async #nodes(seq: number): Promise<NodeKnowledge[]> {
    const ledger = this.#session.ledger();
    const nodes = await allPages((cursor) =>
      ledger.listNodes({ limit: 500, ...(cursor === undefined ? {} : { cursor }) }),
    );
    for (const { id, name } of nodes) this.#names.set(id, name);
    const nowMs = this.#session.nowMs();
    return nodes
      .filter(({ state }) => state !== 'pending' && state !== 'revoked')
      .map((node) => knowledgeOf(node, seq, nowMs));
  }

  async #tellRuns(): Promise<void> {
    const before = new Map(this.#runs.map(({ run, state }) => [run, state]));
    const again = await this.#unlessAway(() => this.#work.readAgain(this.#runs));
    this.#runs = again ?? this.#runs;
    for (const { run, state, problem, realm, deployment } of this.#runs) {
      if (before.get(run) === state) continue;
      const code = problem === null ? '' : ` (${problem.code})`;
      this.#session.output.note(`${run} of ${realm}/${deployment}: ${state}${code}`);
    }
  }

  /** Undefined when somebody cannot be asked: a revocation that was sent is told of all the same. */
  async #unlessAway<T>(ask: () => Promise<T>): Promise<T | undefined> {
    try {
      return await ask();
    } catch (error) {
      if (!isHyphaError(error)) throw error;
      const remark = `cannot be asked now: ${error.code}: ${error.message}`;
      if (!this.#remarks.has(remark)) this.#session.output.note(remark);
      this.#remarks.add(remark);
      return undefined;
    }
  }

  async #report(seq: number, nodes: NodeKnowledge[], complete: boolean): Promise<void> {
    const work = await this.#unlessAway(() => this.#work.listTouched(this.#revoked));
    const named = <T extends { readonly node: string }>(items: readonly T[]) =>
      items.map((item) => ({ ...item, nodeName: this.#names.get(item.node) ?? item.node }));
    const sealed = (work?.touched ?? []).filter(({ secrets }) => secrets.length > 0);
    showRevocation(this.#session, {
      ...{ authoritySeq: seq, complete, nodes },
      touched: work === undefined ? null : named(work.touched),
      unshown: named(work?.unshown ?? []),
      stopped: this.#runs.filter(({ problem }) => problem?.code === 'E_KEY_REVOKED'),
      active: this.#runs.filter(({ state }) => !isTerminal(state)),
      rotate: Object.fromEntries(sealed.map(({ deployment, secrets }) => [deployment, secrets])),
    });
  }
}

function knowledgeOf(node: NodeView, seq: number, nowMs: number): NodeKnowledge {
  const { id, name, state, authoritySeq, lastReportAt } = node;
  const knows = authoritySeq !== undefined && authoritySeq >= seq;
  const behind = authoritySeq === undefined ? 'has never reported' : `is at update ${authoritySeq}`;
  const silent = `unreachable since ${lastReportAt === null ? 'it enrolled' : new Date(lastReportAt).toISOString()} (${ago(lastReportAt, nowMs)})`;
  const why = knows ? '' : state === 'unreachable' ? silent : behind;
  return { id, name, state, authoritySeq: authoritySeq ?? null, knows, why };
}

function isComplete(nodes: readonly NodeKnowledge[], runs: readonly RunView[]): boolean {
  const reachable = nodes.filter(({ state }) => state !== 'unreachable');
  const isGoingOn = runs.some(
    ({ state, node }) => !isTerminal(state) && reachable.some(({ id }) => id === node),
  );
  return reachable.every(({ knows }) => knows) && !isGoingOn;
}
