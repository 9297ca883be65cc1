import type { Grant } from './authority-payload.ts';
import { HyphaError } from './hypha-error.ts';
import type { RunLimits, ScriptPayload } from './script-payload.ts';

/** First item of `inner` that `outer` does not hold, with its index. `'*'` holds all and is held only by itself. */
export function findUncovered(
  outer: readonly string[],
  inner: readonly string[],
): { item: string; index: number } | undefined {
  if (outer.includes('*')) return undefined;
  const held = new Set(outer);
  const index = inner.findIndex((item) => !held.has(item));
  const item = inner[index];
  return item === undefined ? undefined : { item, index };
}

/** Path of the first limit in `asked` that is over its ceiling, e.g. `resources.memoryBytes`. */
export function findLimitOver(ceiling: RunLimits | null, asked: RunLimits): string | undefined {
  if (ceiling === null) return undefined;
  const { resources: most, ...runMost } = ceiling;
  const { resources, ...run } = asked;
  return findOver(runMost, run) ?? prefixed('resources.', findOver(most, resources));
}

function findOver<T extends Readonly<Record<string, number>>>(ceiling: T, asked: T) {
  return Object.keys(asked).find((name) => (asked[name] ?? 0) > (ceiling[name] ?? 0));
}

function prefixed(prefix: string, name: string | undefined): string | undefined {
  return name === undefined ? undefined : prefix + name;
}

/**
 * Step 15 of security notes §1.4: role, realm, caps, audience and limits of a script inside one grant.
 * Gives `E_SCOPE`, `where.path` naming the field of the payload that asks too much; undefined when all fits.
 */
export function findScopeFault(payload: ScriptPayload, grant: Grant): HyphaError | undefined {
  const fault = (path: string, what: string): HyphaError =>
    new HyphaError('E_SCOPE', `key ${grant.name} may not ${what}`, { where: { path } });
  const { realm, caps, aud, limits } = payload;
  if (grant.role !== 'operator') return fault('signatures', `sign scripts as ${grant.role}`);
  if (findUncovered(grant.realms, [realm]) !== undefined)
    return fault('realm', `act in realm ${realm}`);
  const cap = findUncovered(grant.caps, caps);
  if (cap !== undefined) return fault(`caps.${cap.index}`, `use the capability ${cap.item}`);
  const node = findUncovered(grant.nodes, aud.nodes);
  if (node !== undefined) return fault(`aud.nodes.${node.index}`, `act on ${node.item}`);
  const limit = findLimitOver(grant.limits, limits);
  if (limit !== undefined) return fault(`limits.${limit}`, `ask for that much ${limit}`);
  return undefined;
}

/** Whether every permission of `inner` is one of `outer` too: realms, caps, nodes, limits, validity. */
export function isGrantWithin(outer: Grant, inner: Grant): boolean {
  const listsWithin = (['realms', 'caps', 'nodes'] as const).every(
    (list) => findUncovered(outer[list], inner[list]) === undefined,
  );
  const limitsWithin =
    outer.limits === null ||
    (inner.limits !== null && findLimitOver(outer.limits, inner.limits) === undefined);
  const timeWithin = inner.notBefore >= outer.notBefore && inner.notAfter <= outer.notAfter;
  return listsWithin && limitsWithin && timeWithin;
}
