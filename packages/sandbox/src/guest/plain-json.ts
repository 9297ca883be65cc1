import type { Json } from '@hypha/protocol';

/** Nesting that strict JSON readers accept, less what a value is wrapped in on its way. */
const DEPTH_MAX = 56;

/**
 * Why a value that `JSON.parse` made cannot be written where strict JSON is read (journals, receipts);
 * null when it can. Only what JSON text can hold is looked for.
 */
export function findNotPlain(value: unknown): string | null {
  const open: { value: unknown; depth: number }[] = [{ value, depth: 1 }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { value, depth } = next;
    if (depth > DEPTH_MAX) return `nested deeper than ${DEPTH_MAX}`;
    if (typeof value === 'string' && !value.isWellFormed())
      return 'half a surrogate pair in a string';
    if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
      return 'an integer beyond 2^53-1';
    }
    if (typeof value !== 'object' || value === null) continue;
    for (const [key, member] of Object.entries(value)) {
      if (key === '__proto__') return 'a key "__proto__"';
      if (!key.isWellFormed()) return 'half a surrogate pair in a key';
      open.push({ value: member, depth: depth + 1 });
    }
  }
  return null;
}

/** Parsed, or why it is refused. */
export function readPlainJson(text: string): { value: Json } | { refused: string } {
  const value: unknown = JSON.parse(text);
  const refused = findNotPlain(value);
  // `JSON.parse` makes nothing but JSON values.
  return refused === null ? { value: value as Json } : { refused };
}
