import { type Program, parse } from 'acorn';
import { HyphaError } from './hypha-error.ts';

/** The one module there is for a script. */
const MODULE = 'hypha';

/**
 * Parses a script as the guest engine will: an ES2023 module that imports from 'hypha' only. Nothing is run.
 * @throws HyphaError `E_SCRIPT_SYNTAX`; `where` counts lines and columns from 1
 */
export function checkScriptSyntax(source: string, file?: string): void {
  const place = file === undefined ? {} : { file };
  const foreign = findForeignImport(parseModule(source, place));
  if (foreign === undefined) return;
  throw new HyphaError(
    'E_SCRIPT_SYNTAX',
    `cannot import ${JSON.stringify(foreign.name)}: a script imports from '${MODULE}' only`,
    { where: { ...place, line: foreign.line, column: foreign.column } },
  );
}

function parseModule(source: string, place: { readonly file?: string }): Program {
  try {
    return parse(source, { ecmaVersion: 2023, sourceType: 'module', locations: true });
  } catch (cause) {
    if (isAcornError(cause)) {
      const { line, column } = cause.loc;
      const reason = cause.message.replace(/ \(\d+:\d+\)$/, '');
      throw new HyphaError('E_SCRIPT_SYNTAX', `cannot parse the script: ${reason}`, {
        cause,
        where: { ...place, line, column: column + 1 },
      });
    }
    if (cause instanceof RangeError) {
      throw new HyphaError('E_SCRIPT_SYNTAX', 'cannot parse the script: nested too deep', {
        cause,
        where: { ...place, line: 1, column: 1 },
      });
    }
    throw cause;
  }
}

/** Static imports, and exports from elsewhere. A dynamic one fails where it runs. */
function findForeignImport(
  program: Program,
): { readonly name: string; readonly line: number; readonly column: number } | undefined {
  for (const statement of program.body) {
    if (!('source' in statement)) continue;
    const { value, loc } = statement.source ?? { value: MODULE };
    if (value === MODULE) continue;
    const { line, column } = loc?.start ?? { line: 1, column: 0 };
    return { name: String(value), line, column: column + 1 };
  }
  return undefined;
}

function isAcornError(
  error: unknown,
): error is SyntaxError & { readonly loc: { readonly line: number; readonly column: number } } {
  return error instanceof SyntaxError && 'loc' in error;
}
