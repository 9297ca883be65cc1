import { HyphaError, Name, type NodeView } from '@hypha/protocol';
import type { Command } from 'commander';
import { admitNode } from '../authority-signing.ts';
import { collect, parseInteger, parsePairs } from '../option-parsers.ts';
import { ago, bytes, type Output } from '../output.ts';
import { allPages, type Session, selectNodes, sessionOf } from '../session.ts';
import { joinNode } from '../up/node-join.ts';

/** A join token lives this long at most (design §8, issue: ≤ 1 h). */
const TOKEN_SECONDS_MAX = 3600;

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
      { title: 'name', cell: (node) => node.name },
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
    ['name', node.name],
    ['id', node.id],
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

interface AddOptions {
  label: string[];
  realm: string[];
  ttl: string;
  key?: string;
}

async function addNode(session: Session, name: string, options: AddOptions): Promise<void> {
  if (!Name.safeParse(name).success) {
    throw new HyphaError('E_NAME', `not a valid node name: ${JSON.stringify(name)}`);
  }
  const { ledger, coordinator, genesis } = session.context;
  const { admission, token, expiresAt } = admitNode({
    admin: session.admin(options.key),
    name,
    labels: parsePairs(options.label, '--label'),
    realms: options.realm.length > 0 ? options.realm : ['*'],
    nowMs: session.nowMs(),
    lifetimeSeconds: parseInteger(options.ttl, '--ttl', { min: 1, max: TOKEN_SECONDS_MAX }),
    genesis,
    ledger,
    coordinator,
  });
  await session.ledger().appendEntry(admission);
  session.output.item({ name, token, expiresAt }, [
    ['node', name],
    ['token', token],
    ['expires', new Date(expiresAt * 1000).toISOString()],
    ['next', `on the machine: hypha node join TOKEN`],
  ]);
}

export function nodeCommand(program: Command): void {
  const node = program.command('node').description('machines that run what was signed');
  node
    .command('add <name>')
    .description('admit one machine: prints a join token, good once')
    .option('--label <k=v>', 'label for placement; repeat for more', collect, [])
    .option('--realm <realm>', 'realm it may serve; repeat for more; default all', collect, [])
    .option('--ttl <seconds>', 'how long the token is good', String(TOKEN_SECONDS_MAX))
    .option('--key <file-or-name>', 'admin key to sign with')
    .action((name: string, options: AddOptions, command: Command) =>
      addNode(sessionOf(command), name, options),
    );
  node
    .command('join <token>')
    .description('make this machine a node and run it in the foreground (Ctrl-C stops it)')
    .option('--port <port>', 'port of its own API, on loopback', '7403')
    .option('--runners <n>', 'how many runs at once', '1')
    .option('--storage <size>', 'size of the volume pool', '20GiB')
    .option('--sals <mode>', 'auto, real or simulated', 'auto')
    .option('--keep-workloads', 'leave containers running when it stops')
    .action((token: string, options: Parameters<typeof joinNode>[2], command: Command) =>
      joinNode(sessionOf(command), token, options),
    );
  node
    .command('list')
    .description('all nodes, with what is free')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      showList(session.output, await listNodes(session), session.nowMs());
    });
  node
    .command('show <node>')
    .description('one node by name or id')
    .action(async (name: string, _options: unknown, command: Command) => {
      const session = sessionOf(command);
      for (const found of selectNodes(await listNodes(session), [name])) {
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
