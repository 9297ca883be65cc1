/**
 * The ledger: authority, admissions, nodes and receipts, as an append-only sequence of signed entries.
 *
 * ```ts
 * startLedger({ state, host, port, genesis?, reportIntervalMs, log, clock? }): Promise<Ledger>  // {url, close}
 * ```
 * As a process: `main.ts --state DIR [--genesis FILE] [--port N] [--host H] [--report-interval-ms N]`.
 */
export { LedgerConfig } from './config.ts';
export { type Ledger, type LedgerOptions, startLedger } from './ledger.ts';
