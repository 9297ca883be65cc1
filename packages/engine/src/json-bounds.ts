import { HyphaError, type Json, LIMITS, utf8 } from '@hypha/protocol';

/** Deeper than anything we read from the wire is refused before anything recurses into it. */
export function isTooDeep(value: Json): boolean {
  let level: readonly Json[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > LIMITS.jsonDepthMax) return true;
    level = level.flatMap((item) =>
      typeof item === 'object' && item !== null ? Object.values(item) : [],
    );
  }
  return false;
}

/** Bytes as JSON text. */
export function jsonBytes(value: unknown): number {
  return utf8(JSON.stringify(value) ?? '').length;
}

/**
 * The same value with every lone surrogate replaced: what journals and signatures can hold. Throws
 * `E_ARGUMENT` when it is too deep.
 */
export function wellFormed(value: Json): Json {
  if (isTooDeep(value)) throw new HyphaError('E_ARGUMENT', 'a value nests too deep');
  return repair(value);
}

function repair(value: Json): Json {
  if (typeof value === 'string') return value.toWellFormed();
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(repair);
  const entries = Object.entries(value);
  return Object.fromEntries(entries.map(([key, item]) => [key.toWellFormed(), repair(item)]));
}

/** Text the journal can keep: well-formed and bounded. */
export function boundedText(text: string, charsMax: number): string {
  const whole = text.toWellFormed();
  return whole.length <= charsMax ? whole : `${whole.slice(0, charsMax - 1).toWellFormed()}…`;
}
