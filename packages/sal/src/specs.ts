/**
 * Specs of the resources that scripts declare. One schema per kind, shared by the real and the
 * simulated SALs, so both refuse the same things.
 */
import { Name, Rid } from '@hypha/protocol';
import { z } from 'zod';
import { Bytes } from './quantity.ts';
import { SecretRef } from './secret-files.ts';

/** A handle the script passed: the broker has checked that it belongs to the deployment. */
export const Ref = z.strictObject({ $rid: Rid, kind: z.string(), name: Name });
export type Ref = z.infer<typeof Ref>;

export const VolumeSpec = z.strictObject({
  size: Bytes.pipe(z.int().min(1)),
  /** Undo restores the content only when this is set (design §10). */
  snapshotBefore: z.boolean().default(false),
  /** Start as a copy-on-write clone of another volume of the deployment. */
  cloneOf: Ref.optional(),
});
export type VolumeSpec = z.infer<typeof VolumeSpec>;

/** `30s`, `500ms`, `2m` or milliseconds. */
export const Duration = z.union([z.string(), z.number()]).transform((value, context) => {
  const match = typeof value === 'number' ? null : /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(value);
  const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match?.[2] ?? ''];
  const ms = typeof value === 'number' ? value : Number(match?.[1]) * (unit ?? Number.NaN);
  if (Number.isSafeInteger(Math.round(ms)) && ms >= 0) return Math.round(ms);
  context.addIssue({ code: 'custom', message: 'not a duration: write it like 30s' });
  return z.NEVER;
});

const AbsolutePath = z
  .string()
  .max(4096)
  .regex(/^\/[^\0]*$/, 'an absolute path')
  .refine(
    (path) => !path.split('/').some((part) => part === '..' || part === '.'),
    'no . or .. in it',
  );

export const HealthSpec = z.strictObject({
  http: z
    .strictObject({
      port: z.int().min(1).max(65_535),
      path: z
        .string()
        .max(1024)
        .regex(/^\/[\x21-\x7e]*$/, 'a path of printable characters')
        .default('/'),
    })
    .optional(),
  /** TCP connect. */
  tcp: z.strictObject({ port: z.int().min(1).max(65_535) }).optional(),
  /** Exit code 0 is healthy. */
  exec: z.array(z.string().max(4096)).min(1).max(64).optional(),
  within: Duration.default(30_000),
});
export type HealthSpec = z.infer<typeof HealthSpec>;

function textOrSecret(charsMax: number) {
  const error = `a text of at most ${charsMax} characters, or a secret`;
  return z.union([z.string().max(charsMax), SecretRef], { error });
}

const EnvName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/);

export const ContainerSpec = z.strictObject({
  /** `oci:/path/to/layout:tag` or `registry/repo@sha256:…`. */
  image: z.string().min(1).max(1024),
  /** Replaces the image's entrypoint and command. */
  command: z.array(z.string().max(65_536)).min(1).max(256).optional(),
  /** A secret among them is in memory only, but every process of the container can read it. */
  env: z.record(EnvName, textOrSecret(32_768)).default({}),
  workdir: AbsolutePath.optional(),
  /** `uid` or `uid:gid`, numeric; default: the image's. */
  user: z
    .string()
    .regex(/^\d{1,9}(?::\d{1,9})?$/)
    .optional(),
  memory: Bytes.pipe(z.int().min(4 * 1024 * 1024)).default(128 * 1024 * 1024),
  /** Cores; fractions allowed down to a hundredth. */
  cpus: z.number().min(0.01).max(1024).default(0.5),
  pids: z.int().min(1).max(1_000_000).default(256),
  /** Mount point → volume. */
  mounts: z.record(AbsolutePath, Ref).default({}),
  /** Path → text or secret. Written into a tmpfs and bound read-only, so it is never on a disk. */
  files: z.record(AbsolutePath, textOrSecret(65_536)).default({}),
  readonly: z.boolean().default(false),
  health: HealthSpec.optional(),
  restart: z.enum(['always', 'on-failure', 'never']).default('always'),
});
export type ContainerSpec = z.infer<typeof ContainerSpec>;

/** Result of `container.ensure`: what the script's handle holds. */
export const ContainerResult = z.strictObject({
  $rid: Rid,
  kind: z.literal('container'),
  name: Name,
  /** IPv6 address, derived from the node and the rid, so known before it exists. */
  address: z.string(),
  simulated: z.boolean(),
});
export type ContainerResult = z.infer<typeof ContainerResult>;

export const VolumeResult = z.strictObject({
  $rid: Rid,
  kind: z.literal('volume'),
  name: Name,
  sizeBytes: z.int(),
  simulated: z.boolean(),
});
export type VolumeResult = z.infer<typeof VolumeResult>;

/** `data.snapshot('before')`. */
export const SnapshotArgs = z.strictObject({ volume: Ref, name: Name });
export type SnapshotArgs = z.infer<typeof SnapshotArgs>;

export const SnapshotResult = z.strictObject({
  /** Rid of the volume. */
  volume: Rid,
  name: Name,
  simulated: z.boolean(),
});
export type SnapshotResult = z.infer<typeof SnapshotResult>;

/** `web.exec(['nginx', '-t'], { timeout: '10s' })`. */
export const ExecArgs = z.strictObject({
  container: Ref,
  command: z.array(z.string().max(65_536)).min(1).max(256),
  timeout: Duration.pipe(z.int().min(1).max(3_600_000)).default(60_000),
  /** True: repeating it does no harm, so a call of unknown outcome is made again (design §10). */
  idempotent: z.boolean().default(false),
});
export type ExecArgs = z.infer<typeof ExecArgs>;

export const ExecResult = z.strictObject({
  exitCode: z.int(),
  /** The last 64 KiB of each. */
  stdout: z.string(),
  stderr: z.string(),
  simulated: z.boolean(),
});
export type ExecResult = z.infer<typeof ExecResult>;
