import { Fleet } from '../../test/fixtures/fleet.ts';

/** A fleet that `own` takes down, also when it is still starting then. */
export async function ownFleet(own: AsyncDisposableStack, ...args: string[]): Promise<Fleet> {
  const starting = Fleet.start(...args);
  own.defer(async () => {
    // One that did not start has cleaned up after itself.
    const fleet = await starting.catch(() => undefined);
    await fleet?.[Symbol.asyncDispose]();
  });
  return await starting;
}
