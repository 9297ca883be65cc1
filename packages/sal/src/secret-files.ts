/**
 * Secrets as SALs meet them: a reference in a spec, which is all that a record or a journal holds, and a port
 * to the one who has the plaintext (G9).
 */
import { HyphaError, type Json, Name } from '@hypha/protocol';
import { z } from 'zod';

/**
 * Hex of the node's keyed hash of a value: another value has another, the same value sealed again the same.
 * Nobody without the node's key can tell a value by it.
 */
export const SecretVersion = z.string().regex(/^[0-9a-f]{32}$/, 'a version of a secret');

/** What a script's `secret('token')` is in a spec. */
export const SecretRef = z.strictObject({ secret: Name, version: SecretVersion });
export type SecretRef = Readonly<z.infer<typeof SecretRef>>;

export interface SecretOwner {
  readonly realm: string;
  readonly deployment: string;
}

/** Who hands out plaintext: the supervisor, to itself or to the runner that owns a run of the deployment. */
export interface SecretFiles {
  /**
   * Version → absolute path of a file with the value, on a tmpfs, readable by everybody who can reach it, and
   * only root can. There when it resolves, until no record refers to it.
   * @throws HyphaError `E_SECRET` when the deployment has no such value on this node
   */
  provide(
    owner: SecretOwner,
    refs: readonly SecretRef[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, string>>;
}

/** For a node without secrets. */
export const NO_SECRETS: SecretFiles = {
  provide: async ({ realm, deployment }, refs) => {
    const [ref] = refs;
    if (ref === undefined) return new Map();
    throw new HyphaError('E_SECRET', `no secret ${ref.secret} of ${realm}/${deployment} here`);
  },
};

/** Every reference in a spec, wherever it is. */
export function findSecretRefs(value: Json): SecretRef[] {
  if (typeof value !== 'object' || value === null) return [];
  const parsed = SecretRef.safeParse(value);
  if (parsed.success) return [parsed.data];
  return Object.values(value).flatMap((item: Json) => findSecretRefs(item));
}
