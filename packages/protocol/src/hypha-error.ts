import { z } from 'zod';
import { type ErrorCode, errorInfo, isErrorCode } from './error-codes.ts';

/** Where a thing went wrong: a field path, a URL, or a place in the operator's script. */
export const ProblemPlace = z.strictObject({
  /** Path of a field, e.g. `aud.nodes.0`; or what was named: a node, a step, a resource. */
  path: z.string().optional(),
  file: z.string().optional(),
  line: z.int().optional(),
  column: z.int().optional(),
  /** Step number of the call that failed. */
  step: z.int().optional(),
});
export type ProblemPlace = z.infer<typeof ProblemPlace>;

/** RFC 9457 problem document with Hypha's members (design §9). Loose: later versions may add members. */
export const Problem = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  hint: z.string(),
  where: ProblemPlace.optional(),
  /** Anything a program may want: both sides of a difference, reasons per node. */
  details: z.unknown().optional(),
});
export type Problem = z.infer<typeof Problem>;

/**
 * The one error class. The message says what was tried, with ids, and never holds the cause's text.
 * Whether a retry makes sense is a property of the error.
 */
export class HyphaError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly where: ProblemPlace | undefined;
  readonly hint: string;
  readonly details: unknown;

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      cause?: unknown;
      retryable?: boolean;
      where?: ProblemPlace;
      hint?: string;
      details?: unknown;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'HyphaError';
    this.code = code;
    this.retryable = options.retryable ?? errorInfo(code).retryable ?? false;
    this.where = options.where;
    this.hint = options.hint ?? errorInfo(code).hint;
    this.details = options.details;
  }
}

export function toProblem(error: HyphaError): Problem {
  const info = errorInfo(error.code);
  return {
    type: `urn:hypha:error:${error.code}`,
    title: info.title,
    status: info.status,
    detail: error.message,
    code: error.code,
    hint: error.hint,
    ...(error.where === undefined ? {} : { where: error.where }),
    ...(error.details === undefined ? {} : { details: error.details }),
  };
}

/** Back from the wire. A code this version does not know becomes `E_INTERNAL` with its own text kept. */
export function fromProblem(problem: Problem): HyphaError {
  const known = isErrorCode(problem.code);
  return new HyphaError(
    known ? (problem.code as ErrorCode) : 'E_INTERNAL',
    known ? problem.detail : `${problem.code}: ${problem.detail}`,
    {
      hint: problem.hint,
      ...(problem.where === undefined ? {} : { where: problem.where }),
      ...(problem.details === undefined ? {} : { details: problem.details }),
    },
  );
}

export function isHyphaError(error: unknown, code?: ErrorCode): error is HyphaError {
  return error instanceof HyphaError && (code === undefined || error.code === code);
}
