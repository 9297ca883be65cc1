import { readdirSync, readFileSync } from 'node:fs';
import type { GuestOutcome, GuestProgram, GuestRequest, GuestTurn, Json } from '@hypha/protocol';
import { GuestHost } from '../guest-host.ts';
import { SandboxGuest } from '../sandbox-guest.ts';
import type { SandboxHost } from '../sandbox-host.ts';
import type { SandboxPool } from '../sandbox-pool.ts';
import type { Seat } from '../seat.ts';

const MIB = 1024 * 1024;
const STARTED_AT_MS = 1_700_000_000_000;

let runs = 0;

/** Of a run nobody has seen before. */
export function requestOf(changes: Partial<GuestRequest> = {}): GuestRequest {
  return { run: `run-${++runs}`, realm: 'default', alone: false, ...changes };
}

/** A program with small limits. */
export function programOf(source: string, changes: Partial<GuestProgram> = {}): GuestProgram {
  return {
    source,
    input: {},
    seed: '0123456789abcdef'.repeat(4),
    nowMs: STARTED_AT_MS,
    node: { id: `node_${'a'.repeat(32)}`, name: 'one', labels: { zone: 'north' } },
    limits: { cpuMs: 300, memoryBytes: 32 * MIB, outputBytes: 64 * 1024, hostCalls: 100 },
    ...changes,
  };
}

export function limitsOf(changes: Partial<GuestProgram['limits']>): GuestProgram['limits'] {
  return { ...programOf('').limits, ...changes };
}

/** `nowMs` is what the script's `now()` answers from then on. */
export function done(call: number, value: Json, nowMs = STARTED_AT_MS): GuestOutcome {
  return { call, ok: true, value, nowMs };
}

export function failed(call: number, code: string, message = 'it failed'): GuestOutcome {
  return { call, ok: false, error: { code, message }, nowMs: STARTED_AT_MS };
}

/** Process ids of this process's sandbox hosts. */
export function hostPids(): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/status`, 'utf8');
        return (
          new RegExp(`^PPid:\\s+${process.pid}$`, 'm').test(status) && !/^State:\s+Z/m.test(status)
        );
      } catch {
        return false;
      }
    })
    .map(Number);
}

/** Guests in one host, without a pool. */
export function seatIn(host: SandboxHost): () => SandboxGuest {
  const options = { ageMsMax: 60_000, onChange: () => undefined };
  const guests = new GuestHost(Promise.resolve(host), options);
  const places = {
    settle: async (seat: Seat) => seat,
    leave: async (seat: Seat) => await seat.leave(),
  };
  return () => new SandboxGuest(guests.sit('default', false), places);
}

/** Every turn of one guest, driven with the given outcomes one after another. */
export async function turnsOf(
  pool: SandboxPool,
  program: GuestProgram,
  outcomes: readonly GuestOutcome[] = [],
): Promise<GuestTurn[]> {
  const guest = await pool.openGuest(requestOf());
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
