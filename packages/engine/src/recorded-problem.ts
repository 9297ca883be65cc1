import { type HyphaError, Json, toProblem } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { boundedText, jsonBytes, wellFormed } from './json-bounds.ts';

/** The problem document of an error, as the journal can keep it. Details it cannot keep are left out. */
export function recordedProblem(error: HyphaError): Json {
  const { details, ...problem } = toProblem(error);
  const kept = details === undefined ? undefined : keepDetails(details);
  return wellFormed({
    ...asJson(problem),
    detail: boundedText(problem.detail, ENGINE_LIMITS.messageCharsMax),
    hint: boundedText(problem.hint, ENGINE_LIMITS.messageCharsMax),
    ...(kept === undefined ? {} : { details: kept }),
  });
}

function keepDetails(details: unknown): Json | undefined {
  try {
    const json = wellFormed(Json.parse(JSON.parse(JSON.stringify(details))));
    return jsonBytes(json) > ENGINE_LIMITS.detailsBytesMax ? undefined : json;
  } catch {
    return undefined;
  }
}

function asJson(problem: object): Record<string, Json> {
  return JSON.parse(JSON.stringify(problem));
}
