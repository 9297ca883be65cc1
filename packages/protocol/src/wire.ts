import type { z } from 'zod';
import { Envelope } from './dsse.ts';
import type { ErrorCode } from './error-codes.ts';
import { HyphaError } from './hypha-error.ts';
import { LIMITS } from './limits.ts';
import { parseStrictJson, StrictJsonError } from './strict-json.ts';

/** Raw bytes of a request or file to an envelope. Throws `E_SIZE` over the bound, else `E_ENVELOPE`. */
export function parseEnvelope(raw: Uint8Array): Envelope {
  if (raw.length > LIMITS.submissionBytesMax) {
    throw new HyphaError(
      'E_SIZE',
      `cannot read an envelope of ${raw.length} bytes: at most ${LIMITS.submissionBytesMax}`,
    );
  }
  return parseJsonAs(Envelope, raw, { code: 'E_ENVELOPE', what: 'the envelope' });
}

/** Strict JSON, then the schema. `where.path` names the first field at fault. */
export function parseJsonAs<T extends z.ZodType>(
  schema: T,
  raw: Uint8Array | string,
  refusal: { code: ErrorCode; what: string; integersOnly?: boolean },
): z.infer<T> {
  let value: unknown;
  try {
    value = parseStrictJson(raw, { integersOnly: refusal.integersOnly ?? false });
  } catch (cause) {
    const reason = cause instanceof StrictJsonError ? cause.message : 'not JSON';
    throw new HyphaError(refusal.code, `cannot read ${refusal.what} as strict JSON: ${reason}`, {
      cause,
    });
  }
  return parseAs(schema, value, refusal);
}

export function parseAs<T extends z.ZodType>(
  schema: T,
  value: unknown,
  refusal: { code: ErrorCode; what: string },
): z.infer<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path, message } = firstIssue(parsed.error);
  throw new HyphaError(refusal.code, `${refusal.what} does not fit: ${path}: ${message}`, {
    where: { path },
  });
}

/** The first thing a schema refused. For an unknown key the path names the key itself. */
export function firstIssue(error: z.ZodError): { path: string; message: string } {
  const issue = error.issues[0];
  if (issue === undefined) return { path: '', message: 'does not fit' };
  const key = issue.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : [];
  return { path: [...issue.path, ...key].map(String).join('.'), message: issue.message };
}
