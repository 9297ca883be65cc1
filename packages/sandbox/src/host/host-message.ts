/** What a runner and its sandbox host say to each other: one JSON text a line, one answer a request. */
import {
  GuestCall,
  GuestFailure,
  GuestLog,
  type GuestOutcome,
  type GuestProgram,
  GuestTurn,
  type Json,
} from '@hypha/protocol';
import { z } from 'zod';
import { findNotPlain } from '../guest/plain-json.ts';
import { SANDBOX_LIMITS } from '../limits.ts';

export type HostRequest =
  | { readonly type: 'start'; readonly program: GuestProgram }
  | { readonly type: 'deliver'; readonly outcome: GuestOutcome }
  | { readonly type: 'read-export'; readonly program: GuestProgram; readonly name: string }
  /** Forget the script; the host can take another one. */
  | { readonly type: 'reset' };

/**
 * What `JSON.parse` made is JSON already; the general schema would look at every value in it for a
 * microsecond or more, and a guest can send a million.
 */
const PlainJson = z.custom<Json>((value) => value !== undefined && findNotPlain(value) === null);

const HostTurn = GuestTurn.extend({
  calls: z.array(GuestCall.extend({ args: PlainJson })).max(SANDBOX_LIMITS.turnItemsMax),
  logs: z.array(GuestLog.extend({ fields: PlainJson })).max(SANDBOX_LIMITS.turnItemsMax),
});

/** Read as hostile: a script that broke out of its engine would write this. */
export const HostAnswer = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('turn'), turn: HostTurn }),
  z.strictObject({ type: z.literal('export'), text: z.string().nullable() }),
  z.strictObject({ type: z.literal('export-failure'), failure: GuestFailure }),
  /** After its start and after a reset: ready for a script. */
  z.strictObject({
    type: z.literal('ready'),
    residentBytes: z.int().nonnegative(),
    cpuSeconds: z.number().nonnegative(),
  }),
  /** The script took the engine down; the host exits after saying so. */
  z.strictObject({
    type: z.literal('fault'),
    code: z.enum(['E_SANDBOX', 'E_MEMORY', 'E_INTERNAL']),
    message: z.string().max(1024),
  }),
]);
export type HostAnswer = z.infer<typeof HostAnswer>;
