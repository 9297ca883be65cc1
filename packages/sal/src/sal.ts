import type { ResourceKind } from './resource-kind.ts';
import type { SalVerb } from './step-contract.ts';

export interface SalStatus {
  readonly state: 'real' | 'simulated' | 'unavailable';
  /** `btrfs-progs 6.2`, `runc 1.1.5 (hybrid cgroups)`, `simulated` … */
  readonly driver: string;
  /** Why it is not real, as a person would say it. */
  readonly reason?: string;
}

/** One System Abstraction Layer: its verbs for scripts, its kind for the reconciler. */
export interface Sal {
  readonly kind: string;
  readonly status: SalStatus;
  readonly verbs: readonly SalVerb[];
  readonly resource: ResourceKind;
}

/** Every SAL of one node. */
export interface Sals {
  readonly list: readonly Sal[];
  /** Undefined when no SAL has such a verb. */
  findVerb(verb: string): SalVerb | undefined;
  findKind(kind: string): ResourceKind | undefined;
  /** True when this kind only pretends. */
  isSimulated(kind: string): boolean;
}

export function composeSals(list: readonly Sal[]): Sals {
  const verbs = new Map(list.flatMap((sal) => sal.verbs.map((verb) => [verb.verb, verb] as const)));
  const kinds = new Map(list.map((sal) => [sal.kind, sal] as const));
  return {
    list,
    findVerb: (verb) => verbs.get(verb),
    findKind: (kind) => kinds.get(kind)?.resource,
    isSimulated: (kind) => kinds.get(kind)?.status.state === 'simulated',
  };
}
