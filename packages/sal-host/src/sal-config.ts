import { createHash } from 'node:crypto';
import { POOL_BYTES_MIN } from '@hypha/sal-btrfs';
import { z } from 'zod';

const AbsolutePath = z
  .string()
  .max(1024)
  .regex(/^\/[^\0]*$/, 'an absolute path');

/** Which kinds are real. Containers are only where volumes are. */
export const SalChoice = z
  .strictObject({ volume: z.boolean(), container: z.boolean() })
  .refine(({ volume, container }) => volume || !container, 'real containers need real volumes');
export type SalChoice = z.infer<typeof SalChoice>;

/** JSON: the supervisor hands it to its runners. */
export const SalConfig = z.strictObject({
  /** `auto`: each kind real where it works. `real`: all or an error. */
  mode: z.enum(['auto', 'real', 'simulated']).default('auto'),
  /** Folder of this node for everything the SALs keep, and of no other node. Made when absent. */
  folder: AbsolutePath,
  /** An existing btrfs subvolume to use instead of an image of our own. */
  poolPath: AbsolutePath.optional(),
  /** Size of the image, bytes; at first, and at most 80 % of what is free then. Sparse. */
  poolBytes: z
    .int()
    .min(POOL_BYTES_MIN)
    .default(20 * 1024 ** 3),
  /** Cgroup folder of the node's fences and containers; default: derived from `folder`. */
  group: z
    .string()
    .regex(/^hypha-[0-9a-f]{8}$/)
    .optional(),
  /** Registries (`127.0.0.1:5000`) spoken to without TLS; only loopback ones count. */
  plainRegistries: z.array(z.string().max(300)).max(16).default([]),
  /** What the owner chose: a guest takes it as it is. */
  choice: SalChoice.optional(),
});
export type SalConfig = z.infer<typeof SalConfig>;

/** `hypha-` and 8 hex digits of the SHA-256 of a node's SAL folder: names what is outside of it. */
export function groupOf(folder: string): string {
  return `hypha-${createHash('sha256').update(folder).digest('hex').slice(0, 8)}`;
}
