/**
 * The secrets of a spec, at the moment a process of the container is made. In `files` a secret stays a file of
 * whoever keeps secrets and is only bound; in `env` its text is read, into a bundle that is on a tmpfs.
 */
import { readFile } from 'node:fs/promises';
import { HyphaError } from '@hypha/protocol';
import type { ContainerSpec, ResourceLabel, SecretRef } from '@hypha/sal';
import type { ContainerHost } from './container-host.ts';
import type { BindMount } from './runtime-config.ts';

/** A variable's name, `=` and value (the kernel's MAX_ARG_STRLEN). */
const VARIABLE_BYTES_MAX = 128 * 1024 - 1;

export interface ResolvedSecrets {
  readonly env: Readonly<Record<string, string>>;
  /** `files` that are text. */
  readonly texts: Readonly<Record<string, string>>;
  readonly secretFiles: readonly BindMount[];
}

/** Throws `E_SECRET` for one that the deployment does not have on this node. */
export async function resolveSecrets(
  host: ContainerHost,
  label: ResourceLabel,
  spec: ContainerSpec,
  signal: AbortSignal,
): Promise<ResolvedSecrets> {
  const values = [...Object.values(spec.env), ...Object.values(spec.files)];
  // Once each, however often a spec names it.
  const named = values.flatMap((value) => (typeof value === 'string' ? [] : [value]));
  const refs = [...new Map(named.map((ref) => [ref.version, ref])).values()];
  const paths = refs.length === 0 ? new Map() : await host.secrets.provide(label, refs, signal);
  const pathOf = ({ secret, version }: SecretRef): string => {
    const path = paths.get(version);
    if (path !== undefined) return path;
    throw new HyphaError('E_SECRET', `no secret ${secret} for container ${label.name}`);
  };
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(spec.env)) {
    env[name] = typeof value === 'string' ? value : await readVariable(name, pathOf(value));
  }
  const texts: Record<string, string> = {};
  const secretFiles: BindMount[] = [];
  for (const [destination, value] of Object.entries(spec.files)) {
    if (typeof value === 'string') texts[destination] = value;
    else secretFiles.push({ source: pathOf(value), destination });
  }
  return { env, texts, secretFiles };
}

async function readVariable(name: string, path: string): Promise<string> {
  const text = await readFile(path, 'utf8');
  if (Buffer.byteLength(`${name}=${text}`) <= VARIABLE_BYTES_MAX) return text;
  throw new HyphaError('E_ARGUMENT', `the secret for variable ${name} is too long for a variable`, {
    where: { path: `env.${name}` },
    hint: 'hand it over in files instead',
  });
}
