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

/** `guest` is the number of a script in its host, given by the runner and never again to another. */
export type HostRequest = { readonly guest: number } & (
  | { readonly type: 'start'; readonly program: GuestProgram }
  | { readonly type: 'deliver'; readonly outcome: GuestOutcome }
  | { readonly type: 'read-export'; readonly program: GuestProgram; readonly name: string }
  /** Forget the script. */
  | { readonly type: 'close' }
);

/**
 * What `JSON.parse` made is JSON already; the general schema would look at every value in it for a
 * microsecond or more, and a guest can send a million.
 */
const PlainJson = z.custom<Json>((value) => value !== undefined && findNotPlain(value) === null);

const HostTurn = GuestTurn.extend({
  calls: z.array(GuestCall.extend({ args: PlainJson })).max(SANDBOX_LIMITS.turnItemsMax),
  logs: z.array(GuestLog.extend({ fields: PlainJson })).max(SANDBOX_LIMITS.turnItemsMax),
});

const GuestNumber = z.int().min(1);
/** For whoever decides whether a host is used again. */
const Usage = {
  residentBytes: z.int().nonnegative(),
  cpuSeconds: z.number().nonnegative(),
};

/** Read as hostile: a script that broke out of its engine would write this. */
export const HostAnswer = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('turn'), guest: GuestNumber, turn: HostTurn }),
  z.strictObject({ type: z.literal('export'), guest: GuestNumber, text: z.string().nullable() }),
  z.strictObject({ type: z.literal('export-failure'), guest: GuestNumber, failure: GuestFailure }),
  z.strictObject({ type: z.literal('closed'), guest: GuestNumber, ...Usage }),
  /** The script took the engine down; the host exits after saying so. */
  z.strictObject({
    type: z.literal('fault'),
    guest: GuestNumber,
    code: z.enum(['E_SANDBOX', 'E_MEMORY', 'E_INTERNAL']),
    message: z.string().max(1024),
  }),
]);
export type HostAnswer = z.infer<typeof HostAnswer>;

/** The first thing a host says, once: it takes scripts. */
export const HostReady = z.strictObject({ type: z.literal('ready') });
