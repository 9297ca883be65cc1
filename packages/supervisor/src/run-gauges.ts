import { isClaimable, type Journal, type RunEntry } from '@hypha/journal';
import type { HyphaServer } from '@hypha/service';
import type { NodeCancellation } from './cancellation.ts';
import type { RunTakeover } from './run-takeover.ts';
import type { RunnerPool } from './runner-pool.ts';

/** What an operator of many nodes watches of each one's runs. Counts are since the process began. */
export function addRunGauges(
  server: HyphaServer,
  parts: {
    readonly journal: Journal;
    readonly cancellation: Pick<NodeCancellation, 'accepted'>;
    readonly takeover: Pick<RunTakeover, 'takeovers'>;
    readonly pool: Pick<RunnerPool, 'connected' | 'fenced'>;
  },
): void {
  const { journal, cancellation, takeover, pool } = parts;
  const count = (wanted: (run: RunEntry) => boolean) =>
    journal.listLanes().flatMap(({ runs }) => runs.filter(wanted)).length;
  server.gauge('hypha_runs_unfinished', 'Accepted runs that are not over.', () =>
    count(() => true),
  );
  server.gauge('hypha_runs_held', 'Runs that a runner has in hand.', () =>
    count((entry) => entry.holder !== null && isClaimable(entry)),
  );
  server.gauge('hypha_runs_waiting', 'Runs that wait for a time and are held by no process.', () =>
    count(({ wakeAt }) => wakeAt !== null),
  );
  server.gauge(
    'hypha_cancels_accepted',
    'Cancels that were accepted.',
    () => cancellation.accepted,
  );
  const takenOver = () => takeover.takeovers;
  server.gauge('hypha_runs_taken_over', 'Runs taken over from dead runners.', takenOver);
  server.gauge('hypha_runners_connected', 'Runners that are connected.', () => pool.connected);
  server.gauge('hypha_runners_fenced', 'Runners killed for their silence.', () => pool.fenced);
}
