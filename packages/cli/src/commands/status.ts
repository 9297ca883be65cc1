import { HyphaClient } from '@hypha/client';
import { HyphaError } from '@hypha/protocol';
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
  /** Why the service, which is ready, shows this context nothing: it has no key, or not the right one. */
  readonly refusal?: string;
}

const STATUS_TIMEOUT_MS = 3000;

async function probe(
  { name, url, ca }: { name: string; url: string; ca: string | undefined },
  readSimulated: () => Promise<readonly string[]> = async () => [],
): Promise<ServiceStatus> {
  const client = new HyphaClient({ baseUrl: url, ca, timeoutMs: STATUS_TIMEOUT_MS });
  const get = (path: string) => client.request({ method: 'GET', path, answer: z.unknown() });
  const state = await readState(get).finally(() => client.close());
  if (state !== 'ready') return { name, url, state, simulated: [] };
  try {
    return { name, url, state, simulated: await readSimulated() };
  } catch (error) {
    if (!(error instanceof HyphaError)) throw error;
    return { name, url, state, simulated: [], refusal: error.code };
  }
}

async function readState(get: (path: string) => Promise<unknown>): Promise<ServiceStatus['state']> {
  try {
    await get('/healthz');
  } catch {
    return 'unreachable';
  }
  return await get('/readyz').then(
    () => 'ready',
    () => 'not ready',
  );
}

export function statusCommand(program: Command): void {
  program
    .command('status')
    .description('are the services up')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      const { ledger, coordinator, nodes } = session.context;
      const { ca } = session;
      const services = await Promise.all([
        probe({ name: 'ledger', url: ledger, ca }),
        probe({ name: 'coordinator', url: coordinator, ca }),
        ...nodes.map(({ name, url }) =>
          probe({ name, url, ca }, async () => simulatedKinds(await session.nodeAt(url).facts())),
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
              simulatedNote(item.simulated) +
              (item.refusal === undefined ? '' : ` (shows nothing: ${item.refusal})`),
          },
          { title: 'url', cell: (item) => item.url },
        ],
        'no services in this context',
      );
      if (services.some((service) => service.state !== 'ready'))
        process.exitCode = EXIT.unavailable;
    });
}
