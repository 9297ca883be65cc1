import { join } from 'node:path';
import {
  Envelope,
  HyphaError,
  Labels,
  Name,
  NodeId,
  parseStrictJson,
  Sha256Hex,
} from '@hypha/protocol';
import { findPrivateFile, writePrivateFile } from '@hypha/protocol/node';
import { z } from 'zod';

/** What a node knows of its place since it enrolled: a restart needs neither token nor ledger. */
export const Membership = z.strictObject({
  v: z.literal(1),
  node: NodeId,
  /** The id of the first key of this machine, when it has had others: names what outlives a key. */
  origin: NodeId.optional(),
  /** Name, labels and realms are the admission's, never the node's own. */
  name: Name,
  labels: Labels,
  realms: z.array(z.string()).min(1),
  /** Pinned: every authority update is checked down to it. */
  genesis: Sha256Hex,
  ledger: z.url(),
  coordinator: z.url(),
  admission: Envelope,
  /** Epoch milliseconds, by the ledger's clock. */
  enrolledAt: z.int().nonnegative(),
});
export type Membership = Readonly<z.infer<typeof Membership>>;

const membershipFile = (folder: string) => join(folder, 'membership.json');

/** Undefined before the first enrolment. Throws `E_CONFLICT` when the file is not one. */
export async function findMembership(folder: string): Promise<Membership | undefined> {
  const path = membershipFile(folder);
  const text = await findPrivateFile(path);
  if (text === undefined) return undefined;
  try {
    return Membership.parse(parseStrictJson(text));
  } catch (cause) {
    throw new HyphaError('E_CONFLICT', `cannot read the membership in ${path}`, {
      cause,
      hint: 'restore the file; or remove it and join again with a new token',
    });
  }
}

export function saveMembership(folder: string, membership: Membership): Promise<void> {
  return writePrivateFile(membershipFile(folder), `${JSON.stringify(membership)}\n`);
}
