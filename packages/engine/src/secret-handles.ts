import { HyphaError, type Json, Name } from '@hypha/protocol';
import { SecretRef } from '@hypha/sal';
import { z } from 'zod';
import type { RunGrant } from './ports.ts';

/** What `secret('token')` of a script is on its way out of the guest. */
const SecretHandle = z.strictObject({ $secret: Name });

/**
 * A call's arguments with every handle of a secret replaced by its reference: name, and the version this run
 * was given. Pure, so a replay makes the same. Scripts cannot write a reference themselves.
 * @throws HyphaError `E_SECRET` for one the run was not given; `E_REFERENCE` for what only looks like one
 */
export function withSecrets(grant: Pick<RunGrant, 'payload' | 'secrets'>, args: Json): Json {
  if (typeof args !== 'object' || args === null) return args;
  if (Array.isArray(args)) return args.map((item: Json) => withSecrets(grant, item));
  if (Object.hasOwn(args, '$secret')) return referenceOf(grant, args);
  if (SecretRef.safeParse(args).success) throw notAHandle();
  const members = Object.entries(args).map(([key, value]: [string, Json]) => {
    return [key, withSecrets(grant, value)] as const;
  });
  return Object.fromEntries(members);
}

function referenceOf(
  { payload, secrets }: Pick<RunGrant, 'payload' | 'secrets'>,
  handle: Json,
): Json {
  const parsed = SecretHandle.safeParse(handle);
  if (!parsed.success) throw notAHandle();
  const { $secret: secret } = parsed.data;
  const version = Object.hasOwn(secrets, secret) ? secrets[secret] : undefined;
  if (version !== undefined) return { secret, version };
  throw new HyphaError(
    'E_SECRET',
    `this run of ${payload.realm}/${payload.deployment} was given no secret ${secret}`,
    { hint: `name it in deployment.secrets and give it: --secret ${secret}=env:NAME` },
  );
}

function notAHandle(): HyphaError {
  return new HyphaError('E_REFERENCE', 'an argument looks like a secret but is none', {
    hint: "pass what secret('name') returned, unchanged",
  });
}
