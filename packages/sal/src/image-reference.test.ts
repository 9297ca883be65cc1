import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { getLayoutDigest, parseImageReference } from './image-reference.ts';

const digest = `sha256:${'a'.repeat(64)}`;

test('reads a layout with its tag and a registry image with its digest', () => {
  expect(parseImageReference('oci:/srv/images/web:1.2')).toEqual({
    source: 'layout',
    folder: '/srv/images/web',
    tag: '1.2',
  });
  expect(parseImageReference(`localhost:5000/team/web@${digest}`)).toEqual({
    source: 'registry',
    repository: 'localhost:5000/team/web',
    digest,
  });
});

test.for([
  'docker.io/library/nginx:latest',
  'nginx',
  `nginx@${digest}`,
  `--help/x@${digest}`,
  `registry/web@sha256:${'A'.repeat(64)}`,
  'oci:relative:tag',
  'oci:/srv/../etc:tag',
  'oci:/srv/web',
  'oci:/srv/web:-tag',
  `registry/web@${digest}\n`,
])('refuses %s', (image) => {
  expect(() => parseImageReference(image)).toThrow(
    expect.objectContaining({ code: 'E_IMAGE', where: { path: 'image' } }),
  );
});

test('finds the digest of a tag and names the tags there are otherwise', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'hypha-layout-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  await expect(getLayoutDigest(folder, 'v1')).rejects.toMatchObject({ code: 'E_IMAGE' });
  const manifest = { digest, annotations: { 'org.opencontainers.image.ref.name': 'v1' } };
  await writeFile(join(folder, 'index.json'), JSON.stringify({ manifests: [manifest] }));
  expect(await getLayoutDigest(folder, 'v1')).toBe(digest);
  await expect(getLayoutDigest(folder, 'v2')).rejects.toMatchObject({
    code: 'E_IMAGE',
    hint: 'it has: v1',
  });
});
