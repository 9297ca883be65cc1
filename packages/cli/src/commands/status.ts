import { HyphaClient } from '@hypha/client';
import type { Command } from 'commander';
import { z } from 'zod';
import { EXIT } from '../exit-code.ts';
import { sessionOf } from '../session.ts';
import { simulatedKinds, simulatedNote } from '../simulated-kinds.ts';

interface ServiceStatus {
  readonly name: string;
  readonly url: string;
  readonly state: 'ready' | 'not ready' | 'unreachable';
  /** Kinds of resources a node only pretends to make. */
  readonly simulated: readonly string[];
}

const STATUS_TIMEOUT_MS = 3000;

async function probe(
  name: string,
  url: string,
  readSimulated: () => Promise<readonly string[]> = async () => [],
): Promise<ServiceStatus> {
  const client = new HyphaClient({ baseUrl: url, timeoutMs: STATUS_TIMEOUT_MS });
  const get = (path: string) => client.request({ method: 'GET', path, answer: z.unknown() });
  try {
    await get('/healthz');
  } catch {
    return { name, url, state: 'unreachable', simulated: [] };
  }
  try {
    await get('/readyz');
    return { name, url, state: 'ready', simulated: await readSimulated() };
  } catch {
    return { name, url, state: 'not ready', simulated: [] };
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
        ...nodes.map(({ name, url }) =>
          probe(name, url, async () => simulatedKinds(await session.nodeAt(url).facts())),
        ),
      ]);
      session.output.list(
        services,
        [
          { title: 'service', cell: (item) => item.name },
          {
            title: 'state',
            cell: (item) =>
              session.output.style(item.state === 'ready' ? 'green' : 'red', item.state) +
              simulatedNote(item.simulated),
          },
          { title: 'url', cell: (item) => item.url },
        ],
        'no services in this context',
      );
      if (services.some((service) => service.state !== 'ready'))
        process.exitCode = EXIT.unavailable;
    });
}
