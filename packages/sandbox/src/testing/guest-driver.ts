import type { GuestOutcome, GuestProgram, GuestTurn, Json } from '@hypha/protocol';
import type { SandboxPool } from '../sandbox-pool.ts';

const MIB = 1024 * 1024;

/** A program with small limits. */
export function programOf(source: string, changes: Partial<GuestProgram> = {}): GuestProgram {
  return {
    source,
    input: {},
    seed: '0123456789abcdef'.repeat(4),
    nowMs: 1_700_000_000_000,
    node: { id: `node_${'a'.repeat(32)}`, name: 'one', labels: { zone: 'north' } },
    limits: { cpuMs: 300, memoryBytes: 32 * MIB, outputBytes: 64 * 1024, hostCalls: 100 },
    ...changes,
  };
}

export function limitsOf(changes: Partial<GuestProgram['limits']>): GuestProgram['limits'] {
  return { ...programOf('').limits, ...changes };
}

export function done(call: number, value: Json): GuestOutcome {
  return { call, ok: true, value };
}

export function failed(call: number, code: string, message = 'it failed'): GuestOutcome {
  return { call, ok: false, error: { code, message } };
}

/** Every turn of one guest, driven with the given outcomes one after another. */
export async function turnsOf(
  pool: SandboxPool,
  program: GuestProgram,
  outcomes: readonly GuestOutcome[] = [],
): Promise<GuestTurn[]> {
  const guest = await pool.openGuest();
  const { signal } = new AbortController();
  try {
    const turns = [await guest.start(program, signal)];
    for (const outcome of outcomes) turns.push(await guest.deliver(outcome, signal));
    return turns;
  } finally {
    await guest.close();
  }
}

/** What a script that makes no call returns, or the failure it ends with. */
export async function endOf(pool: SandboxPool, program: GuestProgram): Promise<Json> {
  const [turn] = await turnsOf(pool, program);
  if (turn === undefined || turn.end === null) return 'not ended';
  return turn.end.ok ? (JSON.parse(turn.end.output) as Json) : { ...turn.end.failure };
}

/** The source of a script around the body of its default function. */
export function script(body: string, imports = 'volume, container, log, node, now, HyphaError') {
  return `import { ${imports} } from 'hypha';\nexport default async (input) => {\n${body}\n};\n`;
}
