import { composeSals, type Sals, type SalVerb, type StepContext } from '@hypha/sal';

export interface WatchedCall {
  readonly verb: string;
  readonly phase: 'prepare' | 'plan' | 'predict' | 'apply' | 'probe' | 'undo';
  readonly context: StepContext;
}

/** Does the call, or something else instead of it. */
export type CallWatch = <T>(call: WatchedCall, work: () => Promise<T>) => Promise<T>;

/** The same SALs, with every call of a verb in other hands. */
export function watchSals(sals: Sals, watch: CallWatch): Sals {
  return composeSals(
    sals.list.map((sal) => ({ ...sal, verbs: sal.verbs.map((verb) => watchVerb(verb, watch)) })),
  );
}

function watchVerb(verb: SalVerb, watch: CallWatch): SalVerb {
  const call = (phase: WatchedCall['phase'], context: StepContext) => ({
    verb: verb.verb,
    phase,
    context,
  });
  const { prepare, predict, probe, undo } = verb;
  return {
    ...verb,
    plan: (context, args) => watch(call('plan', context), () => verb.plan(context, args)),
    apply: (context, args, before) =>
      watch(call('apply', context), () => verb.apply(context, args, before)),
    ...(prepare === undefined
      ? {}
      : {
          prepare: (context, args) =>
            watch(call('prepare', context), () => prepare.call(verb, context, args)),
        }),
    ...(predict === undefined
      ? {}
      : {
          predict: (context, args, plan) =>
            watch(call('predict', context), () => predict.call(verb, context, args, plan)),
        }),
    ...(probe === undefined
      ? {}
      : {
          probe: (context, args, before) =>
            watch(call('probe', context), () => probe.call(verb, context, args, before)),
        }),
    ...(undo === undefined
      ? {}
      : {
          undo: (context, args, before) =>
            watch(call('undo', context), () => undo.call(verb, context, args, before)),
        }),
  };
}
