import { z } from 'zod';
import { Name, NodeId, Nonce, Sha256Hex } from './ids.ts';
import { LIMITS } from './limits.ts';

const Seconds = z.int().nonnegative();

/** What whoever ends a run early signs. Strict: an unknown key is refused. Source: design §8. */
export const CancelPayload = z
  .strictObject({
    v: z.literal(1),
    /** Chosen by the signer; for people and logs. The digest of the envelope is what identifies it. */
    id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
    realm: Name,
    aud: z.strictObject({ nodes: z.array(NodeId).min(1).max(LIMITS.audienceNodesMax) }),
    /** Digest of the script envelope whose runs are to end. */
    target: Sha256Hex,
    iat: Seconds,
    exp: Seconds,
    nonce: Nonce,
    /** What the signer saw. */
    authority: z.strictObject({ seq: z.int().nonnegative(), head: Sha256Hex }),
  })
  .superRefine(({ aud, iat, exp }, context) => {
    const refuse = (path: string[], message: string) =>
      context.addIssue({ code: 'custom', path, message });
    if (new Set(aud.nodes).size !== aud.nodes.length)
      refuse(['aud', 'nodes'], 'names a node twice');
    if (iat > exp) refuse(['iat'], 'is after exp');
  });
export type CancelPayload = z.infer<typeof CancelPayload>;
