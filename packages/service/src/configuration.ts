import { readFileSync } from 'node:fs';
import { parseStrictJson } from '@hypha/protocol';
import type { z } from 'zod';

/** A configuration that cannot be used. `runService` prints it and exits 78 (EX_CONFIG). */
export class ConfigError extends Error {
  /** `KEY: VALUE: reason`, one line a fault. */
  readonly lines: readonly string[];
  constructor(lines: readonly string[]) {
    super(`bad configuration: ${lines.join('; ')}`);
    this.name = 'ConfigError';
    this.lines = lines;
  }
}

export const EXIT_BAD_CONFIG = 78;

/** Values of these keys are not repeated in an error. */
const SECRET_KEY = /token|secret|password|pem/i;

interface Setting {
  /** As its source spells it: `--port`, `HYPHA_LEDGER_PORT`, `port in ledger.json`. */
  readonly name: string;
  readonly value: unknown;
  /** From a flag or the environment: text that may stand for a number, a boolean or JSON. */
  readonly isText: boolean;
}

/**
 * One schema per process; later sources win: file, environment, flags (design §7). Keys are camelCase in
 * the schema and the JSON file, `PREFIX_SNAKE_CASE` in the environment, `--kebab-case VALUE` on the command
 * line. The file is named by `--config FILE` or `PREFIX_CONFIG`. Unknown keys are refused everywhere.
 *
 * @param prefix e.g. `HYPHA_LEDGER`
 * @throws ConfigError naming every fault with its key, value and reason
 */
export function loadConfig<S extends z.ZodObject>(
  schema: S,
  sources: {
    readonly argv: readonly string[];
    readonly env: Readonly<Record<string, string | undefined>>;
    readonly prefix: string;
  },
): Readonly<z.infer<S>> {
  const keys = Object.keys(schema.shape);
  const flags = readFlags(sources.argv, keys);
  const environment = readEnvironment(sources.env, sources.prefix, keys);
  const file = flags.get('config') ?? environment.get('config');
  const settings = new Map([
    ...(file === undefined ? [] : readFile(String(file.value), keys)),
    ...environment,
    ...flags,
  ]);
  settings.delete('config');
  const faults: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [key, setting] of settings) {
    values[key] = setting.isText ? valueOfText(schema.shape[key], setting.value) : setting.value;
  }
  const parsed = schema.safeParse(values);
  if (parsed.success) return Object.freeze(parsed.data);
  for (const issue of parsed.error.issues) {
    const key = String(issue.path[0] ?? '');
    const setting = settings.get(key);
    const name = setting?.name ?? `--${kebabCase(key)}`;
    faults.push(
      faultLine(name, setting?.value, setting === undefined ? 'is required' : issue.message),
    );
  }
  throw new ConfigError(faults);
}

function faultLine(name: string, value: unknown, reason: string): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  const shown = SECRET_KEY.test(name) && value !== undefined ? '(hidden)' : (text ?? '(not set)');
  return `${name}: ${shown}: ${reason}`;
}

/** The text itself where the schema takes it; otherwise the JSON it spells (`8080`, `true`, `["a"]`). */
function valueOfText(schema: z.core.$ZodType | undefined, value: unknown): unknown {
  // Every member of a ZodObject's shape is a full Zod schema.
  const field = schema as z.ZodType | undefined;
  if (field === undefined || typeof value !== 'string') return value;
  if (field.safeParse(value).success) return value;
  try {
    return parseStrictJson(value);
  } catch {
    return value;
  }
}

function readFlags(argv: readonly string[], keys: readonly string[]): Map<string, Setting> {
  const names = new Map(['config', ...keys].map((key) => [`--${kebabCase(key)}`, key]));
  const settings = new Map<string, Setting>();
  for (let at = 0; at < argv.length; ) {
    const [name = '', inline] = splitOnce(argv[at] ?? '', '=');
    const key = names.get(name);
    if (key === undefined) throw new ConfigError([faultLine(name, '', 'unknown flag')]);
    if (settings.has(key)) throw new ConfigError([faultLine(name, argv[at + 1], 'given twice')]);
    const value = inline ?? argv[at + 1];
    if (value === undefined) throw new ConfigError([faultLine(name, undefined, 'has no value')]);
    settings.set(key, { name, value, isText: true });
    at += inline === undefined ? 2 : 1;
  }
  return settings;
}

function readEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  prefix: string,
  keys: readonly string[],
): Map<string, Setting> {
  const names = new Map(['config', ...keys].map((key) => [`${prefix}_${snakeCase(key)}`, key]));
  const settings = new Map<string, Setting>();
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(`${prefix}_`) || value === undefined) continue;
    const key = names.get(name);
    if (key === undefined) throw new ConfigError([faultLine(name, value, 'unknown variable')]);
    settings.set(key, { name, value, isText: true });
  }
  return settings;
}

function readFile(file: string, keys: readonly string[]): [string, Setting][] {
  let value: unknown;
  try {
    value = parseStrictJson(readFileSync(file));
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'cannot be read';
    throw new ConfigError([faultLine('--config', file, reason)]);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ConfigError([faultLine('--config', file, 'is not a JSON object')]);
  }
  return Object.entries(value).map(([key, member]) => {
    const name = `${key} in ${file}`;
    if (!keys.includes(key)) throw new ConfigError([faultLine(name, member, 'unknown key')]);
    return [key, { name, value: member, isText: false }];
  });
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}

function kebabCase(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function snakeCase(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}
