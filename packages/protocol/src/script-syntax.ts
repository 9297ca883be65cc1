import { parse } from 'acorn';
import { HyphaError } from './hypha-error.ts';

/**
 * Parses a script as the guest engine will: an ES2023 module. Nothing is run.
 * @throws HyphaError `E_SCRIPT_SYNTAX`; `where` counts lines and columns from 1
 */
export function checkScriptSyntax(source: string, file?: string): void {
  try {
    parse(source, { ecmaVersion: 2023, sourceType: 'module' });
  } catch (cause) {
    const place = file === undefined ? {} : { file };
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

function isAcornError(
  error: unknown,
): error is SyntaxError & { readonly loc: { readonly line: number; readonly column: number } } {
  return error instanceof SyntaxError && 'loc' in error;
}
