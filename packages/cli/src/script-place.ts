import type { RunsClient } from '@hypha/client';
import {
  fromBase64,
  fromProblem,
  HyphaError,
  type Problem,
  parseStrictJson,
  ScriptPayload,
} from '@hypha/protocol';
import { mapPlace, readSourceMap } from './compile/source-map.ts';

/**
 * A run's problem with its place in the operator's own file. Nodes report places in the signed source; the
 * map is at the end of that source, so the envelope is all that is needed. Falls back to the place as reported.
 */
export async function locateProblem(
  reader: RunsClient,
  run: string,
  problem: Problem,
): Promise<HyphaError> {
  const error = fromProblem(problem);
  const { line, column } = problem.where ?? {};
  if (line === undefined || column === undefined) return error;
  try {
    const { payload } = await reader.envelope(run);
    const { script } = ScriptPayload.parse(parseStrictJson(fromBase64(payload)));
    const map = script === undefined ? undefined : readSourceMap(script.source);
    const place = map === undefined ? undefined : mapPlace(map, { line, column });
    if (place === undefined) return error;
    const { code, message, hint, details, where } = error;
    return new HyphaError(code, message, { hint, details, where: { ...where, ...place } });
  } catch {
    return error;
  }
}
