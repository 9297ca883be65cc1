/**
 * Runs all at once and waits for every one, also when one fails: whoever catches the error finds nothing
 * of it still going on. Throws the first failure in order.
 */
export async function settleAll(work: readonly Promise<unknown>[]): Promise<void> {
  const outcomes = await Promise.allSettled(work);
  const failed = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
