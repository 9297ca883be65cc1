/**
 * Where the services are and which keys to use: a context. `hypha up` writes one into its state folder;
 * others stand in the user's config file. A context pins genesis, so a ledger cannot swap its history.
 */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { HyphaError, Sha256Hex } from '@hypha/protocol';
import { parse as parseToml } from 'smol-toml';
import { z } from 'zod';
import type { CliEnvironment } from './config.ts';

export const Context = z.strictObject({
  ledger: z.url(),
  coordinator: z.url(),
  /** File of certificates (PEM) to trust at https services. Default: those of the system. */
  ca: z.string().optional(),
  /** Hex digest of the first authority update. */
  genesis: Sha256Hex,
  /** Key files by what they are used for. */
  keys: z.strictObject({
    operator: z.string().optional(),
    admin: z.string().optional(),
    root: z.array(z.string()).optional(),
  }),
  /** Nodes reachable from here, for `--via node`, `logs` and `resource`. */
  nodes: z.array(z.strictObject({ id: z.string(), name: z.string(), url: z.url() })).default([]),
});
export type Context = z.infer<typeof Context>;

const ConfigFile = z.strictObject({
  current: z.string().optional(),
  contexts: z.record(z.string(), Context).default({}),
});

export const CONTEXT_FILE = 'context.json';

/** Flags every command has that choose a context. */
export interface ContextFlags {
  readonly state?: string;
  readonly context?: string;
  /** Like `ca` of a context, and before it. */
  readonly ca?: string;
}

/** Where `hypha up` keeps everything when not told. */
export function defaultStateDir(env: CliEnvironment): string {
  if (env.HYPHA_STATE !== undefined) return resolve(env.HYPHA_STATE);
  return process.getuid?.() === 0 ? '/var/lib/hypha' : join(homedir(), '.local', 'state', 'hypha');
}

/** Where `hypha key new` keeps keys. */
export function keyDirOf({ state }: ContextFlags, env: CliEnvironment): string {
  return join(state === undefined ? defaultStateDir(env) : resolve(state), 'keys');
}

/**
 * `--context`, then `--state` or `HYPHA_STATE`, then the config file's current one, then the default
 * state folder. Throws `E_NOT_FOUND` saying where it looked.
 */
export function readContext(flags: ContextFlags, env: CliEnvironment): Context {
  const configFile = env.HYPHA_CONFIG ?? join(homedir(), '.config', 'hypha', 'config.toml');
  const named = flags.context ?? (flags.state === undefined ? env.HYPHA_CONTEXT : undefined);
  if (named !== undefined) {
    const context = readConfig(configFile)?.contexts[named];
    if (context !== undefined) return context;
    throw new HyphaError('E_NOT_FOUND', `no context ${named} in ${configFile}`);
  }
  const explicit = flags.state ?? env.HYPHA_STATE;
  if (explicit === undefined) {
    const config = readConfig(configFile);
    const current = config?.current === undefined ? undefined : config.contexts[config.current];
    if (current !== undefined) return current;
  }
  const file = join(resolve(explicit ?? defaultStateDir(env)), CONTEXT_FILE);
  const context = readJson(file);
  if (context !== undefined) return context;
  throw new HyphaError('E_NOT_FOUND', `no context: there is no ${file}`, {
    hint: 'start one with hypha up, or name one with --state DIR or --context NAME',
  });
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function readJson(file: string): Context | undefined {
  const text = readText(file);
  if (text === undefined) return undefined;
  return parseWith(Context, file, () => JSON.parse(text));
}

function readConfig(file: string): z.infer<typeof ConfigFile> | undefined {
  const text = readText(file);
  if (text === undefined) return undefined;
  return parseWith(ConfigFile, file, () => parseToml(text));
}

function parseWith<T extends z.ZodType>(schema: T, file: string, read: () => unknown): z.infer<T> {
  let value: unknown;
  try {
    value = read();
  } catch (cause) {
    throw new ConfigError(`cannot parse ${file}`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new ConfigError(
    `${file}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not valid'}`,
  );
}

/** A bad config file: exit code 78 (design §12). */
export class ConfigError extends HyphaError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super('E_ARGUMENT', message, { ...options, hint: 'correct the file' });
    this.name = 'ConfigError';
  }
}
