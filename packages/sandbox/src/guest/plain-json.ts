import type { Json } from '@hypha/protocol';

/** Nesting that strict JSON readers accept, less what a value is wrapped in on its way. */
const DEPTH_MAX = 56;

/**
 * Why a value that `JSON.parse` made cannot be written where strict JSON is read (journals, receipts);
 * null when it can. Only what JSON text can hold is looked for.
 */
export function findNotPlain(value: unknown): string | null {
  let level: unknown[] = [value];
  for (let depth = 1; level.length > 0; depth++) {
    if (depth > DEPTH_MAX) return `nested deeper than ${DEPTH_MAX}`;
    const below: unknown[] = [];
    for (const item of level) {
      const refused = isContainer(item) ? addMembers(item, below) : findWrong(item);
      if (refused !== null) return refused;
    }
    level = below;
  }
  return null;
}

function isContainer(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

/** Adds what is in an array or object; a key that is refused comes back. */
function addMembers(container: object, below: unknown[]): string | null {
  if (Array.isArray(container)) {
    for (const item of container) below.push(item);
    return null;
  }
  for (const key of Object.keys(container)) {
    if (key === '__proto__') return 'a key "__proto__"';
    if (!key.isWellFormed()) return 'half a surrogate pair in a key';
    below.push((container as Record<string, unknown>)[key]);
  }
  return null;
}

function findWrong(value: unknown): string | null {
  if (typeof value === 'string' && !value.isWellFormed()) return 'half a surrogate pair in a text';
  if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    return 'an integer beyond 2^53-1';
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
