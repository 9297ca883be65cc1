/**
 * How a container names its image: `oci:/path/to/layout:tag`, or a registry image by digest. A tag of a
 * registry may point elsewhere tomorrow, so it is refused (security notes §2.8).
 */
import { readFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import { z } from 'zod';

export type ImageReference =
  | { readonly source: 'layout'; readonly folder: string; readonly tag: string }
  | { readonly source: 'registry'; readonly repository: string; readonly digest: string };

const LAYOUT = /^oci:(?<folder>\/[^\0:]{1,900}):(?<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})$/;
const REGISTRY =
  /^(?<repository>[a-z0-9][a-z0-9.-]*(?::\d{1,5})?(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+)@(?<digest>sha256:[0-9a-f]{64})$/;

const REF_NAME = 'org.opencontainers.image.ref.name';

const LayoutIndex = z.looseObject({
  manifests: z.array(
    z.looseObject({
      digest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
      annotations: z.record(z.string(), z.string()).optional(),
    }),
  ),
});

/** Pure. Throws `E_IMAGE` on any other form. */
export function parseImageReference(image: string): ImageReference {
  const layout = LAYOUT.exec(image)?.groups;
  if (layout !== undefined) {
    const { folder = '', tag = '' } = layout;
    if (isAbsolute(folder) && !folder.split('/').includes('..')) {
      return { source: 'layout', folder, tag };
    }
  }
  const registry = REGISTRY.exec(image)?.groups;
  if (registry !== undefined) {
    const { repository = '', digest = '' } = registry;
    return { source: 'registry', repository, digest };
  }
  throw new HyphaError('E_IMAGE', `not an image reference: ${image.slice(0, 200)}`, {
    where: { path: 'image' },
    hint: 'write oci:/path/to/layout:tag or registry.example/name@sha256:…',
  });
}

/** Digest of the manifest that an OCI layout has under a tag. Throws `E_IMAGE` when there is none. */
export async function getLayoutDigest(folder: string, tag: string): Promise<string> {
  const index = await readLayoutIndex(folder);
  const manifest = index.manifests.find((entry) => entry.annotations?.[REF_NAME] === tag);
  if (manifest !== undefined) return manifest.digest;
  const tags = index.manifests.flatMap((entry) => entry.annotations?.[REF_NAME] ?? []);
  throw new HyphaError('E_IMAGE', `image layout ${folder} has no tag ${tag}`, {
    where: { path: 'image' },
    hint: tags.length === 0 ? 'it has no tags at all' : `it has: ${tags.slice(0, 10).join(', ')}`,
  });
}

async function readLayoutIndex(folder: string): Promise<z.infer<typeof LayoutIndex>> {
  try {
    return LayoutIndex.parse(JSON.parse(await readFile(join(folder, 'index.json'), 'utf8')));
  } catch (cause) {
    throw new HyphaError('E_IMAGE', `cannot read an image layout at ${folder}`, {
      where: { path: 'image' },
      hint: 'an OCI layout is a folder with oci-layout, index.json and blobs on the node',
      cause,
    });
  }
}
