import type { RunsClient } from '@hypha/client';
import {
  fromBase64,
  fromProblem,
  HyphaError,
  type Problem,
  parseStrictJson,
  ScriptPayload,
} from '@hypha/protocol';
import { mapPlace, readSourceMap, type SourcePlace } from './compile/source-map.ts';

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
  if (problem.where?.line === undefined) return error;
  try {
    const { payload } = await reader.envelope(run);
    const { script } = ScriptPayload.parse(parseStrictJson(fromBase64(payload)));
    return script === undefined ? error : placeError(script.source, error);
  } catch {
    return error;
  }
}

/** The same error, at its place in the operator's own file. @param source as signed, with its map */
export function placeError(source: string, error: HyphaError): HyphaError {
  const { line, column } = error.where ?? {};
  if (line === undefined || column === undefined) return error;
  const place = placeInFile(source, { line, column });
  if (place === undefined) return error;
  const { code, message, hint, details, where, cause } = error;
  return new HyphaError(code, message, { hint, details, cause, where: { ...where, ...place } });
}

/** From a place in the signed source to the operator's own file; undefined where the map has nothing. */
export function placeInFile(
  source: string,
  place: SourcePlace,
): (SourcePlace & { readonly file: string }) | undefined {
  const map = readSourceMap(source);
  return map === undefined ? undefined : mapPlace(map, place);
}
