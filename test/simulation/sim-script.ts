import type { Json } from '@hypha/protocol';
import type { SeededRandom } from '@hypha/testkit';

/** One thing a simulated script does. Data, so that it fits a signed `input`. */
export type Op =
  | {
      readonly op: 'ensure';
      readonly name: string;
      /** 0 is refused before anything is done. */
      readonly size: number;
      readonly fails?: 'once' | 'always';
    }
  | { readonly op: 'mark'; readonly name: string; readonly mark: string }
  | {
      readonly op: 'run';
      readonly name: string;
      readonly idempotent: boolean;
      /** The script has not declared it: after a reboot nobody waits for it to come up. */
      readonly mayBeDown?: boolean;
    }
  | { readonly op: 'peek'; readonly name: string }
  | { readonly op: 'sleep'; readonly ms: number }
  | { readonly op: 'log' }
  | { readonly op: 'throw' }
  | { readonly op: 'all'; readonly ops: readonly Op[] }
  /** Goes on whatever becomes of it. */
  | { readonly op: 'try'; readonly one: Op }
  /** As `hypha run undo` has it done: what a failed run was signed to keep. */
  | { readonly op: 'undo'; readonly run: string };

export type ScriptOps = readonly Op[];

const NAMES = ['a', 'b', 'c', 'd'] as const;

/** A script over a few things: declared one by one or at once, changed, looked at, waited for; some fail. */
export function writeOps(random: SeededRandom): ScriptOps {
  const names = NAMES.slice(0, random.int(1, NAMES.length));
  const declare = names.map((name): Op => {
    return random.chance(0.06) ? { op: 'try', one: inVain(random, name) } : ensure(random, name);
  });
  const ops: Op[] = random.chance(0.5) ? [{ op: 'all', ops: declare }] : declare;
  const count = random.int(0, 8);
  const refused = declare.flatMap(callsOf).filter((op) => op.op === 'ensure' && op.size === 0);
  for (let index = 0; index < count; index++) {
    const one = action(random, names);
    ops.push(refused.length === 0 ? one : asUndeclared(one));
  }
  if (random.chance(0.2)) ops.push({ op: 'throw' });
  return ops;
}

/** A script on what is there, or is not: it looks and changes, and a declaration of it is refused. */
export function writeTask(random: SeededRandom): ScriptOps {
  const names = NAMES.slice(0, random.int(1, NAMES.length));
  const ops: Op[] = [];
  const count = random.int(1, 4);
  for (let index = 0; index < count; index++) {
    const one = asUndeclared(action(random, names));
    ops.push(random.chance(0.6) ? { op: 'try', one } : one);
  }
  if (random.chance(0.15)) ops.push({ op: 'throw' });
  return ops;
}

/** The same without the calls that only a real run can answer, so that its plan is whole. */
export function withoutRuns(ops: ScriptOps): ScriptOps {
  return ops.filter((op) => !callsOf(op).some((call) => call.op === 'run'));
}

/** The same, and then it fails. */
export function failing(ops: ScriptOps): ScriptOps {
  return [...ops, { op: 'throw' }];
}

function asUndeclared(op: Op): Op {
  if (op.op === 'all') return { ...op, ops: op.ops.map(asUndeclared) };
  return op.op === 'run' ? { ...op, mayBeDown: true } : op;
}

/** Every op that calls something, in the order of the calls. */
export function callsOf(op: Op): readonly Op[] {
  if (op.op === 'all') return op.ops.flatMap(callsOf);
  return op.op === 'try' ? callsOf(op.one) : [op];
}

function inVain(random: SeededRandom, name: string): Op {
  if (random.chance(0.3)) return { op: 'ensure', name, size: 0 };
  return { op: 'ensure', name, size: random.int(1, 3), fails: 'always' };
}

function ensure(random: SeededRandom, name: string): Op {
  const size = random.int(1, 3);
  if (random.chance(0.04)) return { op: 'ensure', name, size, fails: 'always' };
  if (random.chance(0.1)) return { op: 'ensure', name, size, fails: 'once' };
  return { op: 'ensure', name, size };
}

function action(random: SeededRandom, names: readonly string[]): Op {
  const name = random.pick(names);
  switch (random.int(1, 8)) {
    case 1:
      return { op: 'mark', name, mark: random.pick(['x', 'y', 'z']) };
    case 2:
      return { op: 'run', name, idempotent: random.chance(0.5) };
    case 3:
      return { op: 'peek', name };
    case 4:
      return { op: 'sleep', ms: random.pick([10, 500, 5_000, 12_000]) };
    case 5:
      return { op: 'log' };
    case 6:
      return { op: 'all', ops: names.map((each): Op => ({ op: 'mark', name: each, mark: 'w' })) };
    case 7:
      return { op: 'try', one: random.chance(0.4) ? inVain(random, name) : ensure(random, name) };
    default:
      return {
        op: 'all',
        ops: [
          { op: 'run', name, idempotent: true },
          { op: 'sleep', ms: random.int(1, 50) },
          ensure(random, name),
        ],
      };
  }
}

export function opsOf(input: Json): ScriptOps {
  return (input as { readonly ops: ScriptOps }).ops;
}
