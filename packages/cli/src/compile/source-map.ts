/**
 * The signed source carries its own map as its last line, without the operator's texts and with names
 * relative to the script's folder: whoever reads the envelope can say where an error is in the file that
 * the operator wrote, and learns nothing else of their machine.
 */
import { originalPositionFor, TraceMap } from '@jridgewell/trace-mapping';
import { z } from 'zod';

const PREFIX = '//# sourceMappingURL=data:application/json;base64,';

/** Source map version 3 (ECMA-426), the members we sign. */
const SignedMap = z.strictObject({
  version: z.literal(3),
  // Shown on terminals: no control characters.
  sources: z.array(
    z
      .string()
      .max(4096)
      .regex(/^\P{Cc}*$/u),
  ),
  mappings: z.string(),
});

/** 1-based. */
export interface SourcePlace {
  readonly line: number;
  readonly column: number;
}

/** What is kept of a bundler's map, as JSON text. */
export function reduceSourceMap(map: string): string {
  const { sources, mappings } = z
    .looseObject({ sources: z.array(z.string()), mappings: z.string() })
    .parse(JSON.parse(map));
  return JSON.stringify(SignedMap.parse({ version: 3, sources, mappings }));
}

export function appendSourceMap(code: string, sourceMap: string): string {
  return `${code.trimEnd()}\n${PREFIX}${Buffer.from(sourceMap).toString('base64')}\n`;
}

/** JSON text of the map in a signed source; undefined when it has none that can be read. */
export function readSourceMap(source: string): string | undefined {
  const start = source.lastIndexOf(PREFIX);
  if (start < 0) return undefined;
  const [encoded = ''] = source.slice(start + PREFIX.length).split('\n');
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  try {
    return SignedMap.safeParse(JSON.parse(text)).success ? text : undefined;
  } catch {
    return undefined;
  }
}

/** From a place in the signed source to the operator's own file; undefined where the map has nothing. */
export function mapPlace(
  sourceMap: string,
  place: SourcePlace,
): (SourcePlace & { readonly file: string }) | undefined {
  const { source, line, column } = originalPositionFor(new TraceMap(sourceMap), {
    line: place.line,
    column: Math.max(0, place.column - 1),
  });
  return source === null || line === null || column === null
    ? undefined
    : { file: source, line, column: column + 1 };
}
