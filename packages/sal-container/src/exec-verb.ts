/** `container.exec`: a command in a running container. Nobody can tell later whether it was run. */
import { HyphaError } from '@hypha/protocol';
import {
  CONTAINER_STEP_LIMITS,
  defineVerb,
  ExecArgs,
  type ExecResult,
  onResource,
  parseArguments,
  type SalVerb,
} from '@hypha/sal';
import { findBundleSpec } from './bundle.ts';
import { execInContainer } from './container-exec.ts';
import type { Containers } from './containers.ts';

const EXEC = 'container.exec';

export function execVerb({ host, store, runtime }: Containers): SalVerb {
  return defineVerb<ExecArgs>({
    verb: EXEC,
    class: 'once',
    capability: 'container',
    kind: 'container',
    parse: (args) => parseArguments(EXEC, ExecArgs, args),
    deadlineMs: ({ timeout }) => timeout + CONTAINER_STEP_LIMITS.execGraceMs,
    plan: async () => ({ action: 'run', before: null }),
    apply: async (context, { command, timeout }) => {
      const { rid, name, signal, op } = onResource(context);
      signal.throwIfAborted();
      const instance = await store.findCurrent(rid);
      if (instance === undefined) {
        throw new HyphaError('E_REFERENCE', `container ${name} is not there`);
      }
      const { state } = await runtime.status(instance, signal);
      const spec = await findBundleSpec(host, instance);
      if (state !== 'running' || spec === undefined) {
        throw new HyphaError(
          'E_SAL',
          `cannot run a command in container ${name}: it is not running`,
          {
            hint: `hypha logs ${name}`,
          },
        );
      }
      const request = { spec, command, key: op, timeoutMs: timeout, signal };
      const outcome = await host.effects.change(() =>
        execInContainer(host, store, instance, request),
      );
      return { ...outcome, simulated: false } satisfies ExecResult;
    },
  });
}
