/** A step applied by a process of its own that is killed while one of its effects is under way. */
import { spawn } from 'node:child_process';
import type { Json } from '@hypha/protocol';
import { EFFECTS, type Effects } from '../effects.ts';
import type { Fence } from '../fence-cgroup.ts';
import type { Sal } from '../sal.ts';
import { type ContractCall, contractContext, getVerb } from './world.ts';

/** What the process is told. */
export interface FatalStep {
  /** What `openSal` makes the world of. */
  readonly world: Json;
  readonly call: ContractCall;
  /** The before-image of the step's intent. */
  readonly before: Json;
  /** The effect that is its last. */
  readonly limit: number;
}

/** How far into its last effect a process gets, milliseconds: a tool begins, works or is about to end. */
const DELAYS_MS = [0, 3, 9] as const;
const STDERR_CHARS_MAX = 4000;

/** The whole of such a process: the step comes as its one argument. */
export async function applyFatally(
  openSal: (world: Json, effects: Effects) => Promise<Sal>,
): Promise<void> {
  // Only `applyInProcess` starts it.
  const { world, call, before, limit } = JSON.parse(process.argv[2] ?? '') as FatalStep;
  const verb = getVerb(await openSal(world, fatalEffects(limit)), call.verb);
  await verb.apply(contractContext(verb, call), verb.parse(call.args), before);
}

function fatalEffects(limit: number): Effects {
  let begun = 0;
  const count = () => {
    if (++begun !== limit) return;
    const delayMs = DELAYS_MS[limit % DELAYS_MS.length];
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), delayMs);
  };
  return {
    run: (command) => {
      count();
      return EFFECTS.run(command);
    },
    change: (change) => {
      count();
      return EFFECTS.change(change);
    },
  };
}

/**
 * Resolves once it has ended and, as a lost runner's fence does, so has every tool it started. True when it was
 * killed, false when it had fewer effects than `step.limit`.
 * @param script absolute path of a program that calls `applyFatally`
 */
export async function applyInProcess(
  script: string,
  step: FatalStep,
  fence: Fence,
): Promise<boolean> {
  const { tool, argv } = fence.enter(process.execPath, [script, JSON.stringify(step)]);
  const child = spawn(tool, argv, { detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
  if (child.pid !== undefined) fence.adopt(child.pid);
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-STDERR_CHARS_MAX);
  });
  const ended = Promise.withResolvers<{ code: number | null; signal: string | null }>();
  child.once('error', ended.reject);
  child.once('exit', (code, signal) => ended.resolve({ code, signal }));
  try {
    const { code, signal } = await ended.promise;
    if (signal === 'SIGKILL') return true;
    if (code === 0) return false;
    throw new Error(`${script} ended with ${code ?? signal}: ${stderr}`);
  } finally {
    child.stderr.destroy();
    await fence.kill();
    await fence.waitEmpty(AbortSignal.timeout(30_000));
    await fence.remove();
  }
}
