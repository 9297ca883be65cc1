import { type ErrorCode, errorInfo, type HyphaError } from '@hypha/protocol';
import { OpenFileError } from '@hypha/protocol/node';
import { ConfigError } from './context.ts';

/** Exit codes by class of outcome (design §12). */
export const EXIT = {
  ok: 0,
  failedRun: 1,
  usage: 2,
  refused: 3,
  notFound: 4,
  unavailable: 69,
  badConfig: 78,
} as const;

const USAGE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'E_ARGUMENT',
  'E_NAME',
  'E_SCRIPT_SYNTAX',
]);

export function exitCodeOf(error: HyphaError): number {
  if (error instanceof ConfigError || error instanceof OpenFileError) return EXIT.badConfig;
  if (USAGE.has(error.code)) return EXIT.usage;
  if (error.code === 'E_NOT_FOUND') return EXIT.notFound;
  // A 501, but no waiting helps.
  if (error.code === 'E_UNSUPPORTED') return EXIT.refused;
  if (error.code === 'E_UNAVAILABLE' || error.code === 'E_RATE') return EXIT.unavailable;
  if (errorInfo(error.code).status >= 500) return EXIT.unavailable;
  return EXIT.refused;
}
