import type { NodeClient } from '@hypha/client';
import { HyphaError, type ResourceView } from '@hypha/protocol';
import type { Command } from 'commander';
import type { Output } from '../output.ts';
import { allPages, type Session, sessionOf } from '../session.ts';
import { nodeAddress } from '../via.ts';

export interface NodeFlags {
  readonly node?: string;
  readonly nodeUrl?: string;
  readonly realm: string;
}

/** Nodes that these flags choose: one by address, one by name, or all this context knows addresses of. */
export function nodesOf(
  session: Session,
  flags: NodeFlags,
): { name: string; client: NodeClient }[] {
  const { nodeUrl, node } = flags;
  if (nodeUrl !== undefined) return [{ name: nodeUrl, client: session.nodeAt(nodeUrl) }];
  const { context } = session;
  const chosen = node === undefined ? context.nodes : [nodeAddress(context, node)];
  if (chosen.length === 0) {
    throw new HyphaError('E_ARGUMENT', 'this context has no address of any node', {
      hint: 'name one with --node-url URL',
    });
  }
  return chosen.map(({ name, url }) => ({ name, client: session.nodeAt(url) }));
}

type Located = ResourceView & { readonly on: string };

async function listAll(
  session: Session,
  flags: NodeFlags & { deployment?: string },
): Promise<Located[]> {
  const { realm, deployment } = flags;
  const perNode = await Promise.all(
    nodesOf(session, flags).map(async ({ name, client }) => {
      const items = await allPages((cursor) =>
        client.listResources({
          realm,
          ...(deployment === undefined ? {} : { deployment }),
          cursor,
          limit: 500,
        }),
      );
      return items.map((item) => ({ ...item, on: name }));
    }),
  );
  return perNode.flat();
}

function showTable(output: Output, resources: readonly Located[]): void {
  output.list(
    resources,
    [
      { title: 'node', cell: (item) => item.on },
      { title: 'deployment', cell: (item) => `${item.realm}/${item.deployment}` },
      { title: 'kind', cell: (item) => item.kind },
      { title: 'name', cell: (item) => item.name },
      {
        title: 'state',
        cell: (item) => (item.simulated ? `${item.state} (simulated)` : item.state),
      },
      { title: 'record', cell: (item) => item.status },
      { title: 'address', cell: (item) => item.addresses.join(',') || '-' },
    ],
    'no resources',
  );
}

/** `deployment/name`, or a name alone. Throws `E_ARGUMENT` for more than that. */
export function parseResourcePath(path: string): {
  readonly deployment: string | undefined;
  readonly name: string;
} {
  const parts = path.split('/');
  const [first = '', second] = parts;
  if (parts.length <= 2 && !parts.includes('')) {
    return second === undefined
      ? { deployment: undefined, name: first }
      : { deployment: first, name: second };
  }
  throw new HyphaError('E_ARGUMENT', `not a resource: ${JSON.stringify(path)}`, {
    hint: 'say NAME or DEPLOYMENT/NAME; the realm is --realm',
  });
}

/** `deployment/name`, or a name that is the only one of its kind. */
export async function findResource(
  session: Session,
  path: string,
  flags: NodeFlags,
  kind?: string,
): Promise<Located> {
  const { deployment, name } = parseResourcePath(path);
  const all = await listAll(session, {
    ...flags,
    ...(deployment === undefined ? {} : { deployment }),
  });
  const matches = all.filter(
    (item) => item.name === name && (kind === undefined || item.kind === kind),
  );
  const [only, second] = matches;
  if (only === undefined) {
    throw new HyphaError('E_NOT_FOUND', `no ${kind ?? 'resource'} ${path}`, {
      hint: 'hypha resource list',
    });
  }
  if (second === undefined) return only;
  const names = matches.map((item) => `${item.on}: ${item.deployment}/${item.name} (${item.kind})`);
  throw new HyphaError('E_ARGUMENT', `${path} names ${matches.length} resources`, {
    hint: 'say DEPLOYMENT/NAME and --node',
    details: names,
  });
}

export function nodeFlags(command: Command): Command {
  return command
    .option('--node <name>', 'only this node')
    .option('--node-url <url>', 'a node by its address')
    .option('--realm <realm>', 'realm of the deployment', 'default');
}

export function resourceCommand(program: Command): void {
  const resource = program.command('resource').description('what nodes hold and keep up');
  nodeFlags(resource.command('list'))
    .description('volumes, containers … with their state now')
    .option('--deployment <name>', 'only of this deployment')
    .action(async (flags: NodeFlags & { deployment?: string }, command: Command) => {
      const session = sessionOf(command);
      showTable(session.output, await listAll(session, flags));
    });
  nodeFlags(resource.command('show <path>'))
    .description('one resource, as DEPLOYMENT/NAME')
    .option('--kind <kind>', 'when a volume and a container share a name')
    .action(async (path: string, flags: NodeFlags & { kind?: string }, command: Command) => {
      const session = sessionOf(command);
      const found = await findResource(session, path, flags, flags.kind);
      session.output.item(found, [
        ['resource', `${found.realm}/${found.deployment}/${found.kind}/${found.name}`],
        ['node', found.on],
        ['rid', found.rid],
        ['state', found.simulated ? `${found.state} (simulated)` : found.state],
        ['record', found.status],
        ['addresses', found.addresses.join(', ') || '-'],
        ['made by', found.createdBy],
        ['last changed by', found.lastOp],
        ['spec', JSON.stringify(found.spec)],
        ['info', JSON.stringify(found.info)],
      ]);
    });
}

/** Lines as they come; in a structured format one document, or one a line while it goes on. */
async function showLines(
  output: Output,
  lines: AsyncIterable<{ readonly data: string }>,
  follow: boolean,
): Promise<void> {
  const kept: string[] = [];
  for await (const { data } of lines) {
    if (output.format === 'table') output.line(data);
    else if (follow) output.jsonLine(data);
    else kept.push(data);
  }
  if (output.format !== 'table' && !follow) output.item(kept, []);
}

export function logsCommand(program: Command): void {
  nodeFlags(program.command('logs <path>'))
    .description('what a container wrote, as DEPLOYMENT/NAME')
    .option('-f, --follow', 'go on until Ctrl-C')
    .option('--tail <lines>', 'only the last lines', '100')
    .action(
      async (
        path: string,
        flags: NodeFlags & { follow?: true; tail: string },
        command: Command,
      ) => {
        const session = sessionOf(command);
        const found = await findResource(session, path, flags, 'container');
        if (found.simulated) {
          throw new HyphaError('E_UNSUPPORTED', `${path} is simulated: nothing runs that writes`, {
            hint: 'hypha doctor says what a real container needs',
          });
        }
        const node = nodesOf(session, flags).find(({ name }) => name === found.on);
        if (node === undefined) return;
        const detach = new AbortController();
        process.once('SIGINT', () => detach.abort());
        const lines = node.client.resourceLogs(found, {
          follow: flags.follow === true,
          tail: Number(flags.tail),
          signal: detach.signal,
        });
        await showLines(session.output, lines, flags.follow === true);
      },
    );
}
