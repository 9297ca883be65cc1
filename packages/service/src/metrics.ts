import { performance } from 'node:perf_hooks';
import { Gauge, Histogram, Registry } from 'prom-client';

/**
 * Numbers every service has. Read when scraped, never on a timer: prom-client's own default metrics wake
 * the process a hundred times a second.
 */
export interface ServiceMetrics {
  readonly registry: Registry;
  readonly requestSeconds: Histogram<'method' | 'route' | 'status'>;
  readonly openStreams: Gauge;
}

export function createServiceMetrics(): ServiceMetrics {
  const registry = new Registry();
  const registers = [registry];
  const requestSeconds = new Histogram({
    name: 'hypha_http_request_seconds',
    help: 'Time from the request line to the end of the answer, streams left out.',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  });
  const openStreams = new Gauge({
    name: 'hypha_http_streams',
    help: 'Event streams that are open.',
    registers,
  });
  const readAtScrape = (name: string, help: string, read: () => number) =>
    addGauge(registry, { name, help, read });
  readAtScrape('process_resident_memory_bytes', 'Resident memory.', () =>
    process.memoryUsage.rss(),
  );
  readAtScrape(
    'nodejs_heap_used_bytes',
    'Used JavaScript heap.',
    () => process.memoryUsage().heapUsed,
  );
  readAtScrape('process_cpu_seconds', 'Processor time used since the start.', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  readAtScrape(
    'nodejs_eventloop_utilization',
    'Share of the time since the start in which the event loop was busy.',
    () => performance.eventLoopUtilization().utilization,
  );
  readAtScrape('process_uptime_seconds', 'Time since the start.', () => process.uptime());
  return { registry, requestSeconds, openStreams };
}

/** A gauge that is read when it is scraped. */
export function addGauge(
  registry: Registry,
  gauge: { readonly name: string; readonly help: string; readonly read: () => number },
): void {
  const { name, help, read } = gauge;
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(read());
    },
  });
}
