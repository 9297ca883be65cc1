/**
 * OCI image layouts with nothing in them but Debian's static busybox: for tests, demonstrations and
 * benchmarks, where no registry is in reach.
 */
import { copyFile, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { findTool, runCommand } from '@hypha/sal';

export interface BusyboxImage {
  /** Folder of the layout, which must not exist. */
  readonly folder: string;
  readonly tag: string;
  /** Path in the image → text, besides busybox itself. */
  readonly files?: Readonly<Record<string, string>>;
  readonly command?: readonly string[];
  /** `NAME=value`. */
  readonly env?: readonly string[];
  readonly user?: string;
  readonly workdir?: string;
  readonly stopSignal?: string;
  /** Claimed, whatever busybox is built for. Default: this machine's. */
  readonly architecture?: string;
}

const APPLETS = [
  ...[
    'cat',
    'chmod',
    'echo',
    'env',
    'false',
    'httpd',
    'id',
    'kill',
    'ls',
    'mkdir',
    'mount',
    'ping',
  ],
  ...['rm', 'sh', 'sleep', 'stat', 'touch', 'true', 'wc', 'wget', 'yes', 'seq', 'nc', 'dd', 'ip'],
];

/** Serves `/www` on port 80. */
const HTTPD = ['/bin/httpd', '-f', '-p', '80', '-h', '/www'];

/** What this machine lacks to build one; undefined when it is all there. */
export async function findImageLack(): Promise<string | undefined> {
  const tools = await Promise.all([findTool('umoci'), findTool('busybox')]);
  return tools.includes(undefined) ? 'needs umoci and busybox-static' : undefined;
}

/** Builds the layout with umoci; it is there whole or not at all. Names it `oci:<folder>:<tag>`. */
export async function buildBusyboxImage(image: BusyboxImage): Promise<string> {
  const [umoci, busybox] = await Promise.all([findTool('umoci'), findTool('busybox')]);
  if (umoci === undefined || busybox === undefined) {
    throw new Error('cannot build a busybox image: needs umoci and busybox-static');
  }
  const work = await mkdtemp(join(tmpdir(), 'hypha-image-'));
  const layout = join(work, 'layout');
  const bundle = join(work, 'bundle');
  const named = `${layout}:${image.tag}`;
  const signal = AbortSignal.timeout(60_000);
  const run = (...argv: readonly string[]) =>
    runCommand({
      tool: umoci,
      argv: ['--log=error', ...argv],
      purpose: `umoci ${argv[0]}`,
      signal,
    });
  try {
    await run('init', `--layout=${layout}`);
    await run('new', `--image=${named}`);
    await run('unpack', `--image=${named}`, bundle);
    await fillRoot(join(bundle, 'rootfs'), busybox, image.files ?? {});
    await run('repack', `--image=${named}`, bundle);
    await run('config', `--image=${named}`, ...configArguments(image));
    await mkdir(dirname(image.folder), { recursive: true });
    await rename(layout, image.folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return `oci:${image.folder}:${image.tag}`;
}

async function fillRoot(
  root: string,
  busybox: string,
  files: Readonly<Record<string, string>>,
): Promise<void> {
  for (const folder of ['bin', 'etc', 'tmp', 'www', 'data']) {
    await mkdir(join(root, folder), { recursive: true });
  }
  await copyFile(busybox, join(root, 'bin/busybox'));
  for (const applet of APPLETS) await symlink('busybox', join(root, 'bin', applet));
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/:/bin/sh\n');
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
}

function configArguments(image: BusyboxImage): readonly string[] {
  const env = image.env ?? ['PATH=/bin'];
  return [
    ...env.map((variable) => `--config.env=${variable}`),
    ...(image.command ?? HTTPD).map((argument) => `--config.cmd=${argument}`),
    ...(image.user === undefined ? [] : [`--config.user=${image.user}`]),
    ...(image.workdir === undefined ? [] : [`--config.workingdir=${image.workdir}`]),
    ...(image.architecture === undefined ? [] : [`--architecture=${image.architecture}`]),
    ...(image.stopSignal === undefined ? [] : [`--config.stopsignal=${image.stopSignal}`]),
  ];
}
