import { type HyphaError, isHyphaError } from '@hypha/protocol';

/** The `HyphaError` that the work ends with; throws when it ends otherwise. */
export async function failureOf(work: Promise<unknown>): Promise<HyphaError> {
  const error = await work.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  if (!isHyphaError(error)) throw new Error(`no HyphaError: ${String(error)}`, { cause: error });
  return error;
}
