import { HyphaError } from '@hypha/protocol';
import { type Node, type Program, parse } from 'acorn';
import type { ScriptBundle } from './script-bundle.ts';
import { mapPlace } from './source-map.ts';

/** What module 'hypha' offers a script, and the capability that using it takes. */
const HYPHA_EXPORTS: Readonly<Record<string, string | null>> = {
  volume: 'volume',
  container: 'container',
  log: null,
  node: null,
  now: null,
  sleep: null,
  waitFor: null,
  undo: null,
  secret: null,
  HyphaError: null,
};

/**
 * The capabilities a script asks for: those of what it imports. Throws `E_SCRIPT_SYNTAX`, with the place in
 * the operator's file, for what would only fail on the node.
 * @param file the operator's own, for what is nowhere in it
 */
export function readCapabilities({ source, sourceMap }: ScriptBundle, file: string): string[] {
  const refuse = (message: string, node: Node) => refuseAt(sourceMap, message, node);
  const program = parseBundle(source);
  const caps = new Set<string>();
  let hasDefault = false;
  for (const statement of program.body) {
    if (statement.type === 'ExportDefaultDeclaration') hasDefault = true;
    if (statement.type === 'ExportNamedDeclaration') {
      hasDefault ||= statement.specifiers.some(({ exported }) => nameOf(exported) === 'default');
    }
    if (statement.type !== 'ImportDeclaration') continue;
    for (const specifier of statement.specifiers) {
      if (specifier.type !== 'ImportSpecifier') {
        throw refuse("import what you use by name: import { volume } from 'hypha'", specifier);
      }
      const name = nameOf(specifier.imported);
      const capability = HYPHA_EXPORTS[name];
      if (capability === undefined) {
        const names = Object.keys(HYPHA_EXPORTS).join(', ');
        throw refuse(`'hypha' has no ${name}; it has ${names}`, specifier);
      }
      if (capability !== null) caps.add(capability);
    }
  }
  const dynamic = findNode(program, 'ImportExpression');
  if (dynamic !== undefined) throw refuse('a script cannot import while it runs', dynamic);
  if (!hasDefault) {
    const where = { file, line: 1, column: 1 };
    throw new HyphaError('E_SCRIPT_SYNTAX', 'the script exports no default function', { where });
  }
  return [...caps].sort();
}

function parseBundle(source: string): Program {
  return parse(source, { ecmaVersion: 2023, sourceType: 'module', locations: true });
}

function nameOf(node: { name?: string; value?: unknown }): string {
  return node.name ?? String(node.value);
}

function refuseAt(sourceMap: string, message: string, { loc }: Node): HyphaError {
  const { line, column } = loc?.start ?? { line: 1, column: 0 };
  const place = mapPlace(sourceMap, { line, column: column + 1 });
  return new HyphaError('E_SCRIPT_SYNTAX', message, place === undefined ? {} : { where: place });
}

/** The first node of a type, at any depth. */
function findNode(root: unknown, type: string): Node | undefined {
  const open: unknown[] = [root];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (typeof next !== 'object' || next === null) continue;
    if ((next as Node).type === type) return next as Node;
    open.push(
      ...Object.values(next).filter((value) => typeof value === 'object' && value !== null),
    );
  }
  return undefined;
}
