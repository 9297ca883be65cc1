import { HyphaError } from '@hypha/protocol';

const UNIT_MS: Readonly<Record<string, number>> = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

/**
 * `2026-11-21`, `2026-11-21T10:00:00Z` or how long ago: `30m`, `2h`, `3d`, `1w`. Epoch milliseconds; a date
 * without a time is midnight UTC. Throws `E_ARGUMENT`.
 */
export function parseMoment(text: string, flag: string, nowMs: number): number {
  const [, count, unit] = /^(\d{1,6})([smhdw])$/.exec(text) ?? [];
  if (count !== undefined && unit !== undefined)
    return nowMs - Number(count) * (UNIT_MS[unit] ?? 0);
  const iso = /^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?(?:Z|[+-]\d{2}:\d{2}))?$/;
  const moment = iso.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(moment)) return moment;
  throw new HyphaError('E_ARGUMENT', `${flag}: cannot read the time ${JSON.stringify(text)}`, {
    hint: 'write 2026-11-21T10:00:00Z, or how long ago: 30m, 2h, 3d',
  });
}
