import { HyphaError, RunId } from '@hypha/protocol';

const HELP = 'add --help for the options';

/** For commander options that may be repeated. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

/** `k=v` pairs. Throws `E_ARGUMENT` naming the one that is none. */
export function parsePairs(pairs: readonly string[], what: string): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      if (at > 0) return [pair.slice(0, at), pair.slice(at + 1)];
      throw new HyphaError(
        'E_ARGUMENT',
        `${what}: expected KEY=VALUE, got ${JSON.stringify(pair)}`,
        { hint: HELP },
      );
    }),
  );
}

/** A whole number within bounds. */
export function parseInteger(
  text: string,
  what: string,
  bounds: { min: number; max: number },
): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= bounds.min && value <= bounds.max) return value;
  throw new HyphaError(
    'E_ARGUMENT',
    `${what}: expected ${bounds.min} to ${bounds.max}, got ${text}`,
    { hint: HELP },
  );
}

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** `90`, `90s`, `15m`, `2h` or `1d` to whole seconds, at least 1. */
export function parseDuration(text: string, what: string): number {
  const [, digits, unit = 's'] = /^(\d{1,9})([smhd])?$/.exec(text) ?? [];
  const seconds = Number(digits) * (UNIT_SECONDS[unit] ?? 1);
  if (Number.isSafeInteger(seconds) && seconds > 0) return seconds;
  throw new HyphaError('E_ARGUMENT', `${what}: expected a time like 90s or 15m, got ${text}`, {
    hint: HELP,
  });
}

/** Throws `E_ARGUMENT` before anybody is asked. */
export function parseRunId(text: string): RunId {
  const parsed = RunId.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new HyphaError('E_ARGUMENT', `not a run id: ${JSON.stringify(text)}`, {
    hint: 'find it with: hypha run list',
  });
}
