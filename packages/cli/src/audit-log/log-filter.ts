import { HyphaError, Name } from '@hypha/protocol';
import { momentOf } from '../log-narrative.ts';
import type { AuditedEntry } from './entry-auditor.ts';
import { parseMoment } from './moment.ts';

/** As the command line gives it. */
export interface LogFlags {
  readonly since?: string;
  readonly until?: string;
  readonly by?: string;
  readonly deployment?: string;
}

export interface LogFilter {
  /** Epoch milliseconds, both inclusive. */
  readonly since: number;
  readonly until: number;
  /** Name or id of whoever signed. */
  readonly by: string | null;
  /** Without a realm: of any. */
  readonly deployment: { readonly realm: string | null; readonly name: string } | null;
}

export function parseLogFilter(flags: LogFlags, nowMs: number): LogFilter {
  const { since, until, by = null, deployment } = flags;
  return {
    since: since === undefined ? 0 : parseMoment(since, '--since', nowMs),
    until: until === undefined ? Number.MAX_SAFE_INTEGER : parseMoment(until, '--until', nowMs),
    by,
    deployment: deployment === undefined ? null : parseDeployment(deployment),
  };
}

function parseDeployment(text: string): NonNullable<LogFilter['deployment']> {
  const parts = text.split('/');
  const [realm, name] = parts.length === 1 ? [null, parts[0]] : parts;
  const named = Name.safeParse(name);
  if (parts.length <= 2 && named.success && (realm === null || Name.safeParse(realm).success))
    return { realm: realm ?? null, name: named.data };
  throw new HyphaError('E_ARGUMENT', `not a deployment: ${JSON.stringify(text)}`, {
    hint: 'write NAME or REALM/NAME',
  });
}

/** By what the entry itself says: all but who signed the revision of a run. */
export function isWanted(filter: LogFilter, entry: AuditedEntry): boolean {
  const moment = momentOf(entry);
  if (moment < filter.since || moment > filter.until) return false;
  const { deployment } = filter;
  if (deployment === null) return true;
  const { statement } = entry;
  if (statement.kind !== 'receipt') return false;
  const { payload } = statement;
  const sameRealm = deployment.realm === null || deployment.realm === payload.realm;
  return sameRealm && deployment.name === payload.deployment;
}

/**
 * A run is by whoever signed its revision, and by the node that signed its receipt.
 * @param signers keyids of the revision; null when nobody can say
 */
export function isBy(
  filter: LogFilter,
  { keyids, statement }: AuditedEntry,
  signers: readonly string[] | null,
  nameOf: (id: string) => string,
): boolean {
  const { by } = filter;
  if (by === null) return true;
  const nodes = statement.kind === 'receipt' ? [statement.payload.node] : [];
  const own = statement.kind === 'enrol' ? [statement.node] : nodes;
  return [...keyids, ...(signers ?? []), ...own].some((id) => id === by || nameOf(id) === by);
}
