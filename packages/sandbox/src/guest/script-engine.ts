/**
 * The JavaScript engine behind the sandbox. What is above it knows turns and faults, nothing of QuickJS,
 * so another engine can take its place and be held to the same tests.
 */
import type {
  ErrorCode,
  GuestFailure,
  GuestOutcome,
  GuestProgram,
  GuestTurn,
} from '@hypha/protocol';

export type GuestLimits = GuestProgram['limits'];

export interface ScriptEngine {
  /** A guest that shares nothing with any other: its own instance, its own capped memory. */
  open(memoryBytes: number): Promise<ScriptGuest>;
}

/**
 * One script. Every method runs guest code, blocks until the guest is idle or out of budget, and throws
 * only `GuestFault`.
 */
export interface ScriptGuest {
  /** Linear memory it has taken, bytes. */
  readonly memoryBytes: number;
  start(program: GuestProgram): GuestTurn;
  deliver(outcome: GuestOutcome): GuestTurn;
  /** Loads the script without running its default function. Instead of `start`. */
  readExport(program: GuestProgram, name: string): ExportRead;
}

export type ExportRead =
  /** JSON text; null when the script has no such export. */
  { readonly text: string | null } | { readonly failure: GuestFailure };

/** The guest is beyond use and so is its host: never reuse an instance after one (security notes §0.4). */
export class GuestFault extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: { cause: unknown }) {
    super(message, options);
    this.name = 'GuestFault';
    this.code = code;
  }
}
