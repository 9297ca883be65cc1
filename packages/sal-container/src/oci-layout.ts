/** Reading OCI image layouts (OCI image-spec 1.0), with every blob checked against its digest. */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import { z } from 'zod';
import { CONTAINER_LIMITS } from './container-limits.ts';

const Digest = z.string().regex(/^sha256:[0-9a-f]{64}$/);

/** Loose, as the specification demands: unknown members are kept out of the way. */
const Descriptor = z.object({
  mediaType: z.string(),
  digest: Digest,
  size: z.int().nonnegative(),
  annotations: z.record(z.string(), z.string()).optional(),
  platform: z.object({ os: z.string(), architecture: z.string() }).optional(),
});
export type Descriptor = z.infer<typeof Descriptor>;

const Index = z.object({ schemaVersion: z.literal(2), manifests: z.array(Descriptor).max(1000) });

const Manifest = z.object({ schemaVersion: z.literal(2), config: Descriptor });

const Strings = z
  .array(z.string())
  .nullish()
  .transform((list) => list ?? []);
const Text = z
  .string()
  .nullish()
  .transform((text) => text ?? '');

const ImageBlob = z.object({
  os: z.string(),
  architecture: z.string(),
  config: z
    .object({
      Entrypoint: Strings,
      Cmd: Strings,
      Env: Strings,
      User: Text,
      WorkingDir: Text,
      StopSignal: Text,
    })
    .nullish(),
});

/** What an image says about the process to start. */
export interface ImageDefaults {
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  /** `NAME=value`. */
  readonly env: readonly string[];
  /** Empty, `uid`, `uid:gid` or names of the image's own passwd and group files. */
  readonly user: string;
  readonly workdir: string;
  /** Empty: SIGTERM. */
  readonly stopSignal: string;
}

const REF_NAME = 'org.opencontainers.image.ref.name';
const INDEX_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
];
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' };

/** This machine in the words of the specification. */
export function imageArchitecture(): string {
  return ARCHITECTURES[process.arch] ?? process.arch;
}

/** The manifest that a tag of the layout names on this machine. Throws `E_IMAGE`. */
export async function resolveTag(folder: string, tag: string): Promise<Descriptor> {
  const bytes = await readBounded(join(folder, 'index.json')).catch((cause: unknown) => {
    throw new HyphaError('E_IMAGE', `cannot find an OCI layout at ${folder}`, {
      cause,
      hint: 'give the absolute path of a folder that has index.json on the node',
    });
  });
  const index = parseAs(Index, bytes, `index.json of ${folder}`);
  const named = index.manifests.filter((entry) => entry.annotations?.[REF_NAME] === tag);
  const [first] = named;
  if (first === undefined) {
    const tags = index.manifests.map((entry) => entry.annotations?.[REF_NAME] ?? '(none)');
    throw new HyphaError('E_IMAGE', `cannot find tag ${tag} in the OCI layout ${folder}`, {
      hint: `it has: ${tags.slice(0, 20).join(', ') || 'no tag'}`,
    });
  }
  if (!INDEX_TYPES.includes(first.mediaType)) return first;
  const list = parseAs(Index, await readBlob(folder, first.digest), `index ${first.digest}`);
  const fitting = list.manifests.find(
    ({ platform }) => platform?.os === 'linux' && platform.architecture === imageArchitecture(),
  );
  if (fitting === undefined) {
    throw new HyphaError(
      'E_IMAGE',
      `image ${tag} of ${folder} is not for linux/${imageArchitecture()}`,
    );
  }
  return fitting;
}

/** Throws `E_IMAGE`, also for an image of another architecture. */
export async function readImageDefaults(
  folder: string,
  manifest: Descriptor,
): Promise<ImageDefaults> {
  const { config } = parseAs(
    Manifest,
    await readBlob(folder, manifest.digest),
    `manifest ${manifest.digest}`,
  );
  const blob = parseAs(ImageBlob, await readBlob(folder, config.digest), `config ${config.digest}`);
  if (blob.os !== 'linux' || blob.architecture !== imageArchitecture()) {
    throw new HyphaError(
      'E_IMAGE',
      `image ${manifest.digest} is for ${blob.os}/${blob.architecture}, ` +
        `not linux/${imageArchitecture()}`,
    );
  }
  return {
    entrypoint: blob.config?.Entrypoint ?? [],
    command: blob.config?.Cmd ?? [],
    env: blob.config?.Env ?? [],
    user: blob.config?.User ?? '',
    workdir: blob.config?.WorkingDir || '/',
    stopSignal: blob.config?.StopSignal ?? '',
  };
}

/** An index of one manifest: what an unpacker needs beside the blobs. */
export function indexOf(manifest: Descriptor, tag: string): string {
  const { mediaType, digest, size } = manifest;
  const entry = { mediaType, digest, size, annotations: { [REF_NAME]: tag } };
  return JSON.stringify({ schemaVersion: 2, manifests: [entry] });
}

async function readBlob(folder: string, digest: string): Promise<Uint8Array> {
  const sha256 = digest.slice('sha256:'.length);
  const bytes = await readBounded(join(folder, 'blobs', 'sha256', sha256)).catch(
    (cause: unknown) => {
      throw new HyphaError('E_IMAGE', `cannot read blob ${digest} of ${folder}`, { cause });
    },
  );
  if (createHash('sha256').update(bytes).digest('hex') !== sha256) {
    throw new HyphaError('E_IMAGE', `blob ${digest} of ${folder} does not have its digest`);
  }
  return bytes;
}

async function readBounded(path: string): Promise<Uint8Array> {
  // Non-blocking, or a named pipe in its place would never be opened.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const info = await file.stat();
    if (!info.isFile() || info.size > CONTAINER_LIMITS.imageJsonBytesMax) {
      throw new RangeError(`not a file of at most ${CONTAINER_LIMITS.imageJsonBytesMax} bytes`);
    }
    return await file.readFile();
  } finally {
    await file.close();
  }
}

function parseAs<T>(schema: z.ZodType<T>, bytes: Uint8Array, what: string): T {
  try {
    return schema.parse(JSON.parse(new TextDecoder().decode(bytes)));
  } catch (cause) {
    throw new HyphaError('E_IMAGE', `cannot read ${what}: not as the OCI image format has it`, {
      cause,
    });
  }
}
