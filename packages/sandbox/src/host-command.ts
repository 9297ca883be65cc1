/** How a sandbox host is started: as little as Node can be given. */
import { createRequire } from 'node:module';
import { sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Confinement, detectConfinement, type HostWrapper } from './confinement.ts';
import { SANDBOX_LIMITS } from './limits.ts';

export interface HostCommand {
  readonly file: string;
  readonly args: readonly string[];
}

/**
 * Limits that only a process can set on itself, then Node. The arguments are data to the shell, never
 * text of it. A limit that the machine already has lower stays as it is. Address space (`-v`) is not
 * among them: V8 then does without guard regions, which costs a tenth of a guest's speed; writable
 * memory (`-d`) bounds the same.
 */
const LIMITS_SHIM = [
  'ulimit -c 0',
  'ulimit -s 8192',
  `ulimit -d ${SANDBOX_LIMITS.hostDataBytesMax / 1024}`,
  `ulimit -n ${SANDBOX_LIMITS.hostFilesMax}`,
  `ulimit -t ${2 * SANDBOX_LIMITS.hostCpuSecondsMax}`,
  // A shell exports where it is.
  'unset PWD OLDPWD',
  'exec "$@"',
].join('; ');

const ENGINE = import.meta.resolve('@jitl/quickjs-wasmfile-release-sync');
const BINDING = import.meta.resolve('quickjs-emscripten-core');
const BINDING_TYPES = createRequire(BINDING).resolve('@jitl/quickjs-ffi-types');

/** Folders a host has to read: its own source, the engine, and what that is made of. */
function readableFolders(): string[] {
  const own = fileURLToPath(new URL('..', import.meta.url));
  const packages = [ENGINE, BINDING].map((url) => fileURLToPath(url));
  return [own, ...[...packages, BINDING_TYPES].map(packagesFolder)];
}

/** The `node_modules` that the package of `file` lies in. */
function packagesFolder(file: string): string {
  const marker = `${sep}node_modules${sep}`;
  return file.slice(0, file.lastIndexOf(marker) + marker.length);
}

const MAIN = fileURLToPath(new URL('./host/main.ts', import.meta.url));

/** What the hosts of this user on this machine are not given. */
export async function detectHosts(): Promise<Confinement> {
  return (await confineHosts(process.execPath)).confinement;
}

/** @param node absolute path of the Node binary */
export async function confineHosts(node: string): Promise<HostWrapper> {
  const packages = [ENGINE, BINDING].map((url) => fileURLToPath(url));
  return await detectConfinement({ files: [node, MAIN, ...packages, BINDING_TYPES] });
}

/**
 * @param node absolute path of the Node binary
 * @param wrapper what is taken from the host
 * @param count number of the host among those of this process
 */
export function hostCommand(node: string, wrapper: HostWrapper, count: number): HostCommand {
  const flags = [
    '--permission',
    ...readableFolders().map((folder) => `--allow-fs-read=${folder}`),
    // Guest recursion uses the host's stack; with less of it, deep guests crash the engine.
    '--stack-size=3900',
    '--max-old-space-size=128',
    '--expose-gc',
    // One helper thread: more cost memory and gain nothing for a process that computes in one.
    '--v8-pool-size=1',
  ];
  return {
    file: '/bin/sh',
    args: ['-c', LIMITS_SHIM, 'hypha-sandbox', ...wrapper.wrap(count), node, ...flags, MAIN],
  };
}
