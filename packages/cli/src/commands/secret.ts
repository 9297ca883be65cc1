import type { SecretView } from '@hypha/protocol';
import type { Command } from 'commander';
import { ago } from '../output.ts';
import { allPages, type Session, sessionOf } from '../session.ts';
import { type NodeFlags, nodeFlags, nodesOf } from './resource.ts';

/** As many digits of a version as people compare. */
const VERSION_CHARS_SHOWN = 8;

type Located = SecretView & { readonly on: string };

async function listSecrets(
  session: Session,
  deployment: string | undefined,
  flags: NodeFlags,
): Promise<Located[]> {
  const { realm } = flags;
  const perNode = await Promise.all(
    nodesOf(session, flags).map(async ({ name, client }) => {
      const of = deployment === undefined ? { realm } : { realm, deployment };
      const items = await allPages((cursor) => client.listSecrets({ ...of, cursor, limit: 500 }));
      return items.map((item) => ({ ...item, on: name }));
    }),
  );
  return perNode.flat();
}

export function secretCommand(program: Command): void {
  const secret = program
    .command('secret')
    .description('sealed values that nodes hold; give one with: hypha apply FILE --secret');
  nodeFlags(secret.command('list [deployment]'))
    .description('names, versions and who uses them; a value is nowhere to be had')
    .action(async (deployment: string | undefined, flags: NodeFlags, command: Command) => {
      const session = sessionOf(command);
      const nowMs = session.nowMs();
      session.output.list(
        await listSecrets(session, deployment, flags),
        [
          { title: 'node', cell: (item) => item.on },
          { title: 'deployment', cell: (item) => `${item.realm}/${item.deployment}` },
          { title: 'secret', cell: (item) => item.name },
          { title: 'version', cell: (item) => item.version.slice(0, VERSION_CHARS_SHOWN) },
          { title: 'since', cell: (item) => ago(item.since, nowMs) },
          { title: 'used by', cell: (item) => item.usedBy.join(', ') || '-' },
        ],
        'no secrets',
      );
    });
}
