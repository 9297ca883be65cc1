import type { RunsClient } from '@hypha/client';
import { HyphaError } from '@hypha/protocol';
import { type Command, Option } from 'commander';
import type { Context } from './context.ts';
import type { Session } from './session.ts';

/** Which way to the nodes: through the coordinator, or straight to a node that is reachable (G8). */
export interface ViaFlags {
  readonly via?: 'coordinator' | 'node';
  readonly nodeUrl?: string;
}

export function viaOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--via <way>', 'ask the coordinator, or a node itself')
        .choices(['coordinator', 'node'])
        .default('coordinator'),
    )
    .option(
      '--node-url <url>',
      'address of the node for --via node; default: the only one of this context',
    );
}

/** A node this context knows an address of. Throws `E_ARGUMENT` or `E_NOT_FOUND` saying what to name. */
export function nodeAddress(
  context: Context,
  wanted: string | undefined,
): Context['nodes'][number] {
  const { nodes } = context;
  if (wanted !== undefined) {
    const found = nodes.find((node) => [node.id, node.name, node.url].includes(wanted));
    if (found !== undefined) return found;
    throw new HyphaError('E_NOT_FOUND', `this context has no address of node ${wanted}`, {
      hint: 'name it with --node-url URL',
    });
  }
  const [only, second] = nodes;
  if (only !== undefined && second === undefined) return only;
  throw new HyphaError('E_ARGUMENT', `this context has addresses of ${nodes.length} nodes`, {
    hint: 'name one with --node-url URL',
  });
}

/**
 * The node that is asked itself when none is named. An address this context does not know, like that of a tunnel, is
 * its only node's. Throws `E_ARGUMENT` when it has several.
 */
export function nodeAsked(
  context: Context,
  { nodeUrl }: Pick<ViaFlags, 'nodeUrl'>,
): Context['nodes'][number] {
  const { nodes } = context;
  const known = nodes.find(({ url }) => url === nodeUrl);
  if (known !== undefined) return known;
  if (nodeUrl === undefined || nodes.length < 2) return nodeAddress(context, undefined);
  throw new HyphaError('E_ARGUMENT', `this context does not know which node is at ${nodeUrl}`, {
    hint: `name it as well: --node ${nodes[0]?.name}`,
  });
}

export function readerOf(session: Session, flags: ViaFlags): RunsClient {
  if (flags.nodeUrl !== undefined) return session.nodeAt(flags.nodeUrl);
  if (flags.via !== 'node') return session.coordinator();
  return session.nodeAt(nodeAddress(session.context, undefined).url);
}
