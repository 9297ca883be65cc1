import type { DeploymentView } from '@hypha/protocol';
import type { Command } from 'commander';
import { ago } from '../output.ts';
import { allPages, sessionOf } from '../session.ts';
import { listRunTable } from './run.ts';

function stateText({ state, runs }: DeploymentView): string {
  return runs.some(({ simulated }) => simulated) ? `${state} (simulated)` : state;
}

const columns = (nowMs: number) => [
  { title: 'deployment', cell: (item: DeploymentView) => `${item.realm}/${item.deployment}` },
  { title: 'gen', cell: (item: DeploymentView) => String(item.generation) },
  { title: 'mode', cell: (item: DeploymentView) => item.mode },
  { title: 'state', cell: stateText },
  { title: 'nodes', cell: (item: DeploymentView) => String(item.runs.length) },
  { title: 'submitted', cell: (item: DeploymentView) => ago(item.submittedAt, nowMs) },
  { title: 'message', cell: (item: DeploymentView) => item.message },
];

export function deploymentCommand(program: Command): void {
  const deployment = program
    .command('deployment')
    .description('named sets of resources, as last submitted');
  deployment
    .command('list')
    .description('every deployment with its newest revision')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      const coordinator = session.coordinator();
      const items = await allPages((cursor) => coordinator.listDeployments({ cursor, limit: 500 }));
      session.output.list(
        items,
        columns(session.nowMs()),
        'no deployments; make one: hypha apply FILE',
      );
    });
  deployment
    .command('show <name>')
    .description('the newest revision and its runs')
    .option('--realm <realm>', 'realm of the deployment', 'default')
    .action(async (name: string, options: { realm: string }, command: Command) => {
      const session = sessionOf(command);
      const found = await session.coordinator().deployment(options.realm, name);
      if (session.output.format !== 'table') return session.output.item(found, []);
      session.output.item(found, [
        ['deployment', `${found.realm}/${found.deployment}`],
        ['generation', String(found.generation)],
        ['revision', found.revision],
        ['mode', found.mode],
        ['state', stateText(found)],
        ['message', found.message],
      ]);
      listRunTable(session.output, found.runs, session.nowMs());
    });
  deployment
    .command('history <name>')
    .description('every revision, newest first')
    .option('--realm <realm>', 'realm of the deployment', 'default')
    .action(async (name: string, options: { realm: string }, command: Command) => {
      const session = sessionOf(command);
      const coordinator = session.coordinator();
      const items = await allPages((cursor) =>
        coordinator.listRevisions(options.realm, name, { cursor, limit: 500 }),
      );
      session.output.list(items, columns(session.nowMs()), 'no revisions');
    });
}
