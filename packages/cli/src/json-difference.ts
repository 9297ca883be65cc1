import { canonicalJson, type Json } from '@hypha/protocol';

export interface FieldDifference {
  /** `mounts./data.size`; empty for the value itself. */
  readonly path: string;
  /** Undefined: not there. */
  readonly was: Json | undefined;
  readonly now: Json | undefined;
}

/** Fields in which two values differ, the innermost that do, in the order of their names. */
export function jsonDifference(
  was: Json | undefined,
  now: Json | undefined,
  path = '',
): readonly FieldDifference[] {
  if (isObject(was) && isObject(now)) {
    const keys = [...new Set([...Object.keys(was), ...Object.keys(now)])].sort();
    return keys.flatMap((key) =>
      jsonDifference(was[key], now[key], path === '' ? key : `${path}.${key}`),
    );
  }
  return textOf(was) === textOf(now) ? [] : [{ path, was, now }];
}

function isObject(value: Json | undefined): value is Record<string, Json> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(value: Json | undefined): string {
  return value === undefined ? 'undefined' : canonicalJson(value);
}
