import { z } from 'zod';
import { Envelope } from './dsse.ts';
import { base64url, fromBase64, utf8 } from './encoding.ts';
import { HyphaError } from './hypha-error.ts';
import { Sha256Hex } from './ids.ts';
import { parseStrictJson } from './strict-json.ts';

/**
 * What one machine needs to join: the secret that spends the admission, and whom to trust. Carrying the
 * genesis hash authenticates the control plane to the node, so there is no trust on first use in either
 * direction (design §8, security notes §1.7).
 */
export const JoinToken = z.strictObject({
  /** 32 random bytes, base64url. Its SHA-256 is the admission's `tokenHash`. */
  secret: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
  genesis: Sha256Hex,
  ledger: z.url(),
  coordinator: z.url(),
  admission: Envelope,
});
export type JoinToken = z.infer<typeof JoinToken>;

const PREFIX = 'hypha1.';

export function formatJoinToken(token: JoinToken): string {
  return PREFIX + base64url(utf8(JSON.stringify(JoinToken.parse(token))));
}

/** Throws `E_TOKEN` when it is not the whole of one token. */
export function parseJoinToken(text: string): JoinToken {
  try {
    if (!text.startsWith(PREFIX)) throw new RangeError('no prefix');
    return JoinToken.parse(parseStrictJson(fromBase64(text.slice(PREFIX.length))));
  } catch (cause) {
    throw new HyphaError('E_TOKEN', 'cannot read the join token', {
      cause,
      hint: 'copy it whole, from hypha1. to its end; or make a new one: hypha node add NAME',
    });
  }
}
