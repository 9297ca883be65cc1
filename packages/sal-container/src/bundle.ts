/**
 * The run folder of an instance: its OCI bundle and the contents of `files`. It is a tmpfs, so nothing
 * in it is ever on a disk, and it is gone after a reboot; then it is made again from the record.
 */
import {
  chmod,
  chown,
  mkdir,
  readdir,
  rename,
  rm,
  stat,
  statfs,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HyphaError, Json } from '@hypha/protocol';
import { ContainerSpec, findRecord, mountTmpfs, TMPFS_MAGIC } from '@hypha/sal';
import { z } from 'zod';
import {
  type ContainerHost,
  cgroupPath,
  type Instance,
  instanceRunFolder,
  parseInstanceId,
} from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import type { InstanceStore } from './instance-store.ts';
import { attachmentOf } from './network-attachment.ts';
import { type BindMount, buildRuntimeConfig, userOf } from './runtime-config.ts';
import { resolveSecrets } from './secret-values.ts';

const HOSTS = '/etc/hosts';

const SpecFile = z.strictObject({ spec: z.unknown() });

/** Everything the runtime needs to create the container. Idempotent; replaces what is there. */
export async function writeBundle(
  host: ContainerHost,
  store: InstanceStore,
  instance: Instance,
  options: { spec: ContainerSpec; signal: AbortSignal },
): Promise<void> {
  const { spec, signal } = options;
  const [record, image] = await Promise.all([store.read(instance), store.readImage(instance)]);
  const folder = await ensureRunFolder(host, instance, signal);
  const attachment = attachmentOf(host, instance.rid);
  const volumes = await findVolumes(host, spec);
  const { env, texts, secretFiles } = await resolveSecrets(host, record.label, spec, signal);
  await host.effects.change(async () => {
    const owner = userOf(spec, image);
    const files = await writeFiles(
      join(folder, 'files'),
      withHosts(spec, texts, { name: record.label.name, address: attachment.address }),
      owner,
    );
    const config = buildRuntimeConfig({
      label: record.label,
      spec,
      env,
      image,
      rootfs: join(store.folder(instance), 'rootfs'),
      namespacePath: attachment.namespacePath,
      cgroupPath: cgroupPath(host, instance),
      files: [...files, ...secretFiles],
      volumes,
      seccomp: host.seccomp,
      limitsSwap: host.limitsSwap,
    });
    await replaceFile(join(folder, 'spec.json'), { spec: Json.parse(spec) });
    await replaceFile(join(folder, 'config.json'), config);
  });
}

/** The spec an instance was last started with; undefined after a reboot. */
export async function findBundleSpec(
  host: ContainerHost,
  instance: Instance,
): Promise<ContainerSpec | undefined> {
  const path = join(instanceRunFolder(host, instance), 'spec.json');
  const file = await findRecord(path, SpecFile);
  return file === undefined ? undefined : ContainerSpec.parse(file.spec);
}

/** Idempotent. The container and its monitor must have ended. */
export async function removeRunFolder(
  host: ContainerHost,
  instance: Instance,
  signal: AbortSignal,
): Promise<void> {
  const folder = instanceRunFolder(host, instance);
  const info = await stat(folder).catch(() => undefined);
  if (info === undefined) return;
  if (info.dev !== (await stat(dirname(folder))).dev) {
    await host.effects.run({
      tool: host.tools.umount,
      argv: ['--', folder],
      purpose: `unmount the run folder of ${instance.id}`,
      signal,
    });
  }
  await host.effects.change(() => rm(folder, { recursive: true, force: true }));
}

/** Instances with a run folder, whatever became of the rest of them. */
export async function listRunFolders(host: ContainerHost): Promise<readonly Instance[]> {
  const names = await readdir(host.runFolder).catch(() => []);
  return names.flatMap((name) => parseInstanceId(name) ?? []);
}

/** Idempotent. */
export async function ensureRunFolder(
  host: ContainerHost,
  instance: Instance,
  signal: AbortSignal,
): Promise<string> {
  const folder = instanceRunFolder(host, instance);
  await host.effects.change(() => mkdir(folder, { recursive: true, mode: 0o700 }));
  if ((await statfs(folder)).type === TMPFS_MAGIC) return folder;
  await mountTmpfs(host.effects, folder, {
    mount: host.tools.mount,
    bytesMax: CONTAINER_LIMITS.runFolderBytesMax,
    flags: ['nosuid', 'nodev'],
    purpose: `mount the run folder of ${instance.id}`,
    signal,
  });
  return folder;
}

/** A name resolver finds nothing without it, not even `localhost`. */
function withHosts(
  spec: ContainerSpec,
  texts: Readonly<Record<string, string>>,
  { name, address }: { readonly name: string; readonly address: string },
): Readonly<Record<string, string>> {
  const isOwn = [...Object.keys(spec.files), ...Object.keys(spec.mounts)].some((path) =>
    [HOSTS, '/etc', '/'].includes(path),
  );
  if (isOwn) return texts;
  const hosts = `127.0.0.1 localhost\n::1 localhost\n${address} ${name}\n`;
  return { [HOSTS]: hosts, ...texts };
}

/** Readable by the container's own user and by nobody else, except for `/etc/hosts`. */
async function writeFiles(
  folder: string,
  files: Readonly<Record<string, string>>,
  owner: { uid: number; gid: number },
): Promise<readonly BindMount[]> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder);
  const mounts: BindMount[] = [];
  for (const [destination, text] of Object.entries(files)) {
    const source = join(folder, String(mounts.length));
    const mode = destination === HOSTS ? 0o444 : 0o400;
    await writeFile(source, text, { mode });
    // The umask took from it.
    await chmod(source, mode);
    await chown(source, owner.uid, owner.gid);
    mounts.push({ source, destination });
  }
  return mounts;
}

/** Whole or not at all: an undo that was cut needs the spec again. */
async function replaceFile(path: string, content: Json): Promise<void> {
  await writeFile(`${path}.draft`, JSON.stringify(content), { mode: 0o600 });
  await rename(`${path}.draft`, path);
}

async function findVolumes(
  host: ContainerHost,
  spec: ContainerSpec,
): Promise<readonly BindMount[]> {
  const mounts: BindMount[] = [];
  for (const [destination, volume] of Object.entries(spec.mounts)) {
    const source = await host.findVolume(volume.$rid);
    if (source === undefined) {
      throw new HyphaError(
        'E_REFERENCE',
        `volume ${volume.name} to mount at ${destination} is not there`,
        { where: { path: `mounts.${destination}` } },
      );
    }
    mounts.push({ source, destination });
  }
  // Outer mount points first, whatever order the script named them in.
  return mounts.toSorted((a, b) => (a.destination < b.destination ? -1 : 1));
}
