import type { HyphaServer } from '@hypha/service';
import type { FleetLink } from './fleet-link.ts';

/** What an operator of many nodes watches of each one's view of the log. */
export function addLogGauges(server: HyphaServer, fleet: FleetLink): void {
  const { fleetLog } = fleet;
  server.gauge('hypha_log_disputed', '1 when the ledger contradicted itself.', () =>
    Number(fleetLog.isDisputed),
  );
  server.gauge('hypha_checkpoint_age_seconds', 'Age of the newest signed head of the log.', () =>
    fleetLog.signedTime === 0 ? 0 : Math.max(0, fleetLog.nowSeconds() - fleetLog.signedTime),
  );
  server.gauge(
    'hypha_clock_behind_seconds',
    'How far the clock is behind what the ledger signed.',
    () => fleetLog.clockBehindSeconds,
  );
  server.gauge(
    'hypha_receipts_unproven_seconds',
    'How long the oldest receipt waits to be in the log.',
    () => fleet.unprovenSeconds,
  );
}
