import {
  buildScriptPayload,
  digestOf,
  type Json,
  nodeIdOf,
  PAYLOAD_TYPES,
  payloadBytes,
  runIdOf,
  utf8,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { systemEntropy } from '../authority-signing.ts';
import type { CompiledScript } from '../compile/index.ts';
import { type LimitFlags, readLimits } from '../run-limits.ts';
import { deploymentOf } from '../script-work.ts';
import type { Past } from './simulated-place.ts';
import type { SimulatedRun, StepFault } from './simulated-run.ts';

export interface SimulationFlags extends LimitFlags {
  readonly name?: string;
  readonly realm?: string;
  readonly onFailure?: 'undo' | 'keep';
  readonly deleteData?: string;
}

/** What would be signed, for a node that nobody has; nothing is signed. */
export function draftSimulation(
  script: CompiledScript,
  given: {
    readonly input: Record<string, Json>;
    readonly labels: Record<string, string>;
    readonly faults: readonly StepFault[];
    readonly past: Past;
    readonly nowMs: number;
  },
  flags: SimulationFlags,
): SimulatedRun {
  const { input, labels, faults, past, nowMs } = given;
  const node = nodeIdOf(nodeVerifier, utf8('the node of simulations'));
  const payload = buildScriptPayload(
    nodeVerifier,
    {
      ...deploymentOf(script, flags),
      generation: past.generation + 1,
      nodes: [node],
      authority: { seq: 0, head: '0'.repeat(64) },
      source: script.source,
      input,
      caps: script.caps,
      limits: readLimits(flags),
      onFailure: flags.onFailure ?? 'undo',
      deleteData: (flags.deleteData ?? '').split(',').filter((name) => name !== ''),
    },
    systemEntropy(nowMs),
  );
  // As signing would refuse it.
  const bytes = payloadBytes('script', payload);
  const digest = digestOf(nodeVerifier, PAYLOAD_TYPES.script, bytes);
  return {
    ...{ payload, faults },
    run: runIdOf(nodeVerifier, digest, node),
    node: { id: node, name: 'simulated', labels },
    secrets: script.deployment.secrets,
    committed: past.desired,
    startMs: nowMs,
  };
}
