import { HyphaError, type Json } from '@hypha/protocol';
import { z } from 'zod';
import { onResource, parseArguments, type ResourceContext } from './step-arguments.ts';
import { defineVerb, type SalVerb, type StepContext } from './step-contract.ts';

const NoArguments = z.strictObject({}).nullable();

/**
 * `volume.get`, `container.get`: the handle of a resource that the deployment has, as the call that declares
 * it would return it. `E_NOT_FOUND` when it has none.
 */
export function handleVerb(options: {
  readonly kind: string;
  /** The handle; undefined when there is no such resource. Heeds `context.planned`. */
  readonly find: (context: ResourceContext) => Promise<Json | undefined>;
}): SalVerb {
  const { kind, find } = options;
  const verb = `${kind}.get`;
  const read = async (context: StepContext): Promise<Json> => {
    context.signal.throwIfAborted();
    const named = onResource(context);
    const handle = await find(named);
    if (handle !== undefined) return handle;
    const { realm, deployment, name } = named;
    throw new HyphaError('E_NOT_FOUND', `${realm}/${deployment} has no ${kind} ${name}`, {
      hint: `hypha resource list; declare it with ${kind}('${name}', …)`,
    });
  };
  return defineVerb<z.infer<typeof NoArguments>>({
    verb,
    class: 'read',
    capability: kind,
    kind,
    parse: (args) => parseArguments(verb, NoArguments, args),
    plan: async () => ({ action: 'run', before: null }),
    predict: read,
    apply: read,
  });
}
