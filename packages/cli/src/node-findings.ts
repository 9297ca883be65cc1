/** What `hypha doctor` finds on the nodes of a context: what protects them, as they say themselves. */
import { HyphaError, isHyphaError, type NodeFactsView, type Protection } from '@hypha/protocol';
import type { Context } from './context.ts';
import type { Session } from './session.ts';

export interface Finding {
  readonly what: string;
  /** `ok`, `simulated`: works without being real; `warn`: works, with a weaker promise; `missing`. */
  readonly state: 'ok' | 'simulated' | 'warn' | 'missing';
  readonly detail: string;
  readonly hint?: string;
}

const NODES_MAX = 16;
const ASK_MS_MAX = 5_000;

/** None where there is no context: a machine can be looked at before there is a fleet. */
export async function findOnNodes(session: Session): Promise<Finding[]> {
  const nodes = nodesOf(session).slice(0, NODES_MAX);
  return (await Promise.all(nodes.map((node) => findOnNode(session, node)))).flat();
}

function nodesOf(session: Session): Context['nodes'] {
  try {
    return session.context.nodes;
  } catch (error) {
    if (isHyphaError(error) && error.code === 'E_NOT_FOUND') return [];
    throw error;
  }
}

async function findOnNode(session: Session, node: Context['nodes'][number]): Promise<Finding[]> {
  let facts: NodeFactsView;
  try {
    const signal = AbortSignal.timeout(ASK_MS_MAX);
    facts = await session.nodeAt(node.url).facts({ signal });
  } catch (error) {
    const reason = error instanceof HyphaError ? `: ${error.message}` : '';
    return [{ what: node.name, state: 'warn', detail: `does not say what protects it${reason}` }];
  }
  return findingsOf(node.name, facts);
}

/** What a node lacks or is alarmed by, a line each, then what is in order. */
export function findingsOf(node: string, { protection, alarms = [] }: NodeFactsView): Finding[] {
  const held = protection.filter(({ ok }) => ok);
  return [
    ...alarms.map((detail): Finding => ({ what: `${node} alarm`, state: 'warn', detail })),
    ...protection.filter(({ ok }) => !ok).map((lack) => toFinding(node, lack)),
    {
      what: node,
      state: 'ok',
      detail: `in order: ${held.map(({ what }) => what).join(', ') || 'nothing'}`,
    },
  ];
}

function toFinding(node: string, { what, detail, hint }: Protection): Finding {
  const finding = { what: `${node} ${what}`, state: 'warn', detail } as const;
  return hint === undefined ? finding : { ...finding, hint };
}
