import type { NodeView } from '@hypha/protocol';
import type { Command } from 'commander';
import { ago, bytes, type Output } from '../output.ts';
import { allPages, type Session, selectNodes, sessionOf } from '../session.ts';
import { type JoinFlags, joinNode } from '../up/node-join.ts';
import { addAdmissionCommands, tryListPending } from './node-admission.ts';

export function listNodes(session: Session): Promise<NodeView[]> {
  const coordinator = session.coordinator();
  return allPages((cursor) => coordinator.listNodes({ cursor, limit: 500 }));
}

function salSummary(node: NodeView): string {
  return Object.entries(node.facts.sals)
    .map(([kind, sal]) => (sal.state === 'real' ? kind : `${kind} (${sal.state})`))
    .join(', ');
}

function showList(output: Output, nodes: readonly NodeView[], nowMs: number): void {
  output.list(
    nodes,
    [
      { title: 'name', cell: nameOf },
      { title: 'state', cell: (node) => node.state },
      { title: 'labels', cell: (node) => pairs(node.labels) || '-' },
      { title: 'free', cell: (node) => freeText(node) },
      { title: 'sals', cell: salSummary },
      { title: 'report', cell: (node) => ago(node.lastReportAt, nowMs) },
      { title: 'id', cell: (node) => node.id },
    ],
    'no nodes; add one: hypha node add NAME',
  );
}

/** Nobody has named a node that waits: it says of itself what it is. */
function nameOf({ name, state, facts }: NodeView): string {
  return state === 'pending' ? `(${facts.hostname})` : name;
}

function pairs(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

function freeText({ free }: NodeView): string {
  return `${free.milliCpus / 1000} cpu, ${bytes(free.memoryBytes)}, ${bytes(free.storageBytes)}`;
}

function showNode(output: Output, node: NodeView, nowMs: number): void {
  const { facts } = node;
  output.item(node, [
    ['name', nameOf(node)],
    ['id', node.id],
    ...(node.replacedBy === undefined ? [] : [['replaced by', node.replacedBy] as const]),
    ['state', node.state],
    ['labels', pairs(node.labels) || '-'],
    ['realms', node.realms.join(', ')],
    ['enrolled', new Date(node.enrolledAt).toISOString()],
    ['last report', ago(node.lastReportAt, nowMs)],
    ['up for', `${Math.round(node.uptimeMs / 1000)} s (boot ${node.bootId})`],
    [
      'machine',
      `${facts.hostname}, ${facts.os}, ${facts.kernel}, ${facts.arch}, cgroups ${facts.cgroups}`,
    ],
    [
      'has',
      `${facts.cpus} cpus, ${bytes(facts.memoryBytes)} memory, ${bytes(facts.storageBytes)} storage`,
    ],
    ['free', freeText(node)],
    ...Object.entries(facts.sals).map(([kind, sal]) => [`sal ${kind}`, salText(sal)] as const),
  ]);
}

function salText({ state, driver, reason }: NodeView['facts']['sals'][string]): string {
  return [state, driver === state ? undefined : driver, reason].filter(Boolean).join(': ');
}

export function nodeCommand(program: Command): void {
  const node = program.command('node').description('machines that run what was signed');
  addAdmissionCommands(node);
  node
    .command('join [token]')
    .description('make this machine a node and run it in the foreground (Ctrl-C stops it)')
    .addHelpText(
      'after',
      '\nThe token comes from --token-file, from stdin with -, or from HYPHA_JOIN_TOKEN. Without one the node waits\nuntil an admin admits its fingerprint. A node that has joined needs nothing of this again.',
    )
    .option('--token-file <file>', 'file with the join token')
    .option('--ledger <url>', 'address of the ledger; with a token: instead of its own')
    .option('--coordinator <url>', 'address of the coordinator; with a token: instead of its own')
    .option('--genesis <hash>', 'the fleet to trust: hypha authority show')
    .option('--as <name>', 'without a token: what the node is called on this machine', 'node')
    .option('--port <port>', 'port of its own API, on loopback', '7403')
    .option('--runners <n>', 'how many runs at once', '1')
    .option('--storage <size>', 'size of the volume pool', '20GiB')
    .option('--sals <mode>', 'auto, real or simulated', 'auto')
    .option('--keep-workloads', 'leave containers running when it stops')
    .action((token: string | undefined, options: JoinFlags, command: Command) =>
      joinNode(sessionOf(command), token, options),
    );
  node
    .command('list')
    .description('all nodes, with what is free')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      const nodes = await Promise.all([listNodes(session), tryListPending(session)]);
      showList(session.output, nodes.flat(), session.nowMs());
    });
  node
    .command('show <node>')
    .description('one node by name or id')
    .action(async (name: string, _options: unknown, command: Command) => {
      const session = sessionOf(command);
      const nodes = await Promise.all([listNodes(session), tryListPending(session)]);
      for (const found of selectNodes(nodes.flat(), [name])) {
        showNode(session.output, found, session.nowMs());
      }
    });
  for (const verb of ['cordon', 'uncordon'] as const) {
    node
      .command(`${verb} <node>`)
      .description(
        verb === 'cordon' ? 'keep new work off a node' : 'let a node take new work again',
      )
      .action(async (name: string, _options: unknown, command: Command) => {
        const session = sessionOf(command);
        for (const { id } of selectNodes(await listNodes(session), [name])) {
          showNode(session.output, await session.coordinatorAsAdmin()[verb](id), session.nowMs());
        }
      });
  }
}
