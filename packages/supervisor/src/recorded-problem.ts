import { type HyphaError, Json, toProblem } from '@hypha/protocol';

/** An error as a journal keeps it: JSON and nothing else. */
export function recordedProblem(error: HyphaError): Json {
  return Json.parse(JSON.parse(JSON.stringify(toProblem(error))));
}
