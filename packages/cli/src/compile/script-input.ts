import { HyphaError, type Json } from '@hypha/protocol';
import { z } from 'zod';

const InputType = z.enum(['string', 'image', 'int', 'bool']);
export type InputType = z.infer<typeof InputType>;

const InputDeclaration = z
  .strictObject({
    type: InputType,
    default: z.union([z.string(), z.int(), z.boolean()]).optional(),
    /** Least and greatest value of an `int`. */
    min: z.int().optional(),
    max: z.int().optional(),
  })
  .superRefine((declaration, context) => {
    const refuse = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: [path], message });
    const { type, min, max } = declaration;
    if (type !== 'int' && min !== undefined) refuse('min', 'is for int only');
    if (type !== 'int' && max !== undefined) refuse('max', 'is for int only');
    if (min !== undefined && max !== undefined && min > max) refuse('min', 'is more than max');
    if (declaration.default === undefined) return;
    const problem = findProblem(declaration, declaration.default);
    if (problem !== undefined) refuse('default', problem);
  });
type InputDeclaration = z.infer<typeof InputDeclaration>;

/** `deployment.input`: name → type, or type with default and bounds. */
export const InputSchema = z.record(
  z.string().regex(/^[A-Za-z][A-Za-z0-9_-]{0,62}$/, 'a letter, then letters, digits, _ and -'),
  z.union([InputType.transform((type): InputDeclaration => ({ type })), InputDeclaration]),
);
export type InputSchema = z.infer<typeof InputSchema>;

/**
 * The script's input from `key=value` texts and the defaults of its schema. Throws `E_ARGUMENT` that names
 * the key, also in `where.path`, for one that is unknown, missing, given twice or does not fit.
 */
export function parseInput(schema: InputSchema, pairs: readonly string[]): Record<string, Json> {
  const given = new Map<string, string>();
  for (const pair of pairs) {
    const at = pair.indexOf('=');
    if (at <= 0) throw refuse(pair, `input ${JSON.stringify(pair)} is not KEY=VALUE`);
    const key = pair.slice(0, at);
    if (given.has(key)) throw refuse(key, `input ${key} is given twice`);
    if (!Object.hasOwn(schema, key)) throw refuse(key, unknownKey(schema, key));
    given.set(key, pair.slice(at + 1));
  }
  const input: Record<string, Json> = {};
  for (const [key, declaration] of Object.entries(schema)) {
    const text = given.get(key);
    const value = text === undefined ? declaration.default : parseValue(declaration.type, text);
    if (value === undefined) {
      throw refuse(
        key,
        `input ${key} is missing`,
        `give it: -i ${key}=${EXAMPLES[declaration.type]}`,
      );
    }
    const problem = findProblem(declaration, value);
    if (problem !== undefined) throw refuse(key, `input ${key}: ${problem}`);
    input[key] = value;
  }
  return input;
}

const EXAMPLES: Readonly<Record<InputType, string>> = {
  string: 'text',
  image: 'oci:/path/to/layout:tag',
  int: '1',
  bool: 'true',
};

/** The text itself when it does not fit the type: `findProblem` then says so. */
function parseValue(type: InputType, text: string): string | number | boolean {
  if (type === 'int' && /^-?\d{1,16}$/.test(text)) return Number(text);
  if (type === 'bool' && (text === 'true' || text === 'false')) return text === 'true';
  return text;
}

function findProblem(
  { type, min, max }: Pick<InputDeclaration, 'type' | 'min' | 'max'>,
  value: string | number | boolean,
): string | undefined {
  switch (type) {
    case 'bool':
      return typeof value === 'boolean' ? undefined : `expected true or false, got ${shown(value)}`;
    case 'int':
      if (typeof value !== 'number' || !Number.isSafeInteger(value)) {
        return `expected a whole number, got ${shown(value)}`;
      }
      if (min !== undefined && value < min) return `expected at least ${min}, got ${value}`;
      return max !== undefined && value > max ? `expected at most ${max}, got ${value}` : undefined;
    case 'image':
      // A layout's folder may have spaces in its path.
      return typeof value === 'string' && /^(?:oci:\/.{1,1019}|\S{1,1024})$/.test(value)
        ? undefined
        : `expected an image reference, got ${shown(value)}`;
    case 'string':
      return typeof value === 'string' ? undefined : `expected a text, got ${shown(value)}`;
  }
}

function shown(value: string | number | boolean): string {
  const text = JSON.stringify(value);
  return text.length <= 80 ? text : `${text.slice(0, 79)}…`;
}

function unknownKey(schema: InputSchema, key: string): string {
  const keys = Object.keys(schema);
  const known = keys.length === 0 ? 'takes no input' : `takes ${keys.join(', ')}`;
  return `input ${key} is unknown: the script ${known}`;
}

function refuse(key: string, message: string, hint?: string): HyphaError {
  return new HyphaError('E_ARGUMENT', message, {
    where: { path: `input.${key}` },
    ...(hint === undefined ? {} : { hint }),
  });
}
