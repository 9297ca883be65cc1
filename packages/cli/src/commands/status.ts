import { HyphaClient } from '@hypha/client';
import type { Command } from 'commander';
import { z } from 'zod';
import { EXIT } from '../exit-code.ts';
import { sessionOf } from '../session.ts';

interface ServiceStatus {
  readonly name: string;
  readonly url: string;
  readonly state: 'ready' | 'not ready' | 'unreachable';
}

const STATUS_TIMEOUT_MS = 3000;

async function probe(name: string, url: string): Promise<ServiceStatus> {
  const client = new HyphaClient({ baseUrl: url, timeoutMs: STATUS_TIMEOUT_MS });
  const get = (path: string) => client.request({ method: 'GET', path, answer: z.unknown() });
  try {
    await get('/healthz');
  } catch {
    return { name, url, state: 'unreachable' };
  }
  try {
    await get('/readyz');
    return { name, url, state: 'ready' };
  } catch {
    return { name, url, state: 'not ready' };
  } finally {
    await client.close();
  }
}

export function statusCommand(program: Command): void {
  program
    .command('status')
    .description('are the services up')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      const { ledger, coordinator, nodes } = session.context;
      const services = await Promise.all([
        probe('ledger', ledger),
        probe('coordinator', coordinator),
        ...nodes.map((node) => probe(node.name, node.url)),
      ]);
      session.output.list(
        services,
        [
          { title: 'service', cell: (item) => item.name },
          {
            title: 'state',
            cell: (item) =>
              session.output.style(item.state === 'ready' ? 'green' : 'red', item.state),
          },
          { title: 'url', cell: (item) => item.url },
        ],
        'no services in this context',
      );
      if (services.some((service) => service.state !== 'ready'))
        process.exitCode = EXIT.unavailable;
    });
}
