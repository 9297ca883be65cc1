import { parse } from 'acorn';

/**
 * Variables of containers that a script puts a secret in, as far as reading it tells: `env: { TOKEN: secret('x') }`,
 * or by a constant. For a warning before signing; nothing depends on it.
 */
export function findSecretVariables(source: string): string[] {
  const program = parse(source, { ecmaVersion: 2023, sourceType: 'module' });
  const constants = new Set<string>();
  const variables = new Set<string>();
  walk(program, (node) => {
    if (node.type !== 'VariableDeclarator') return;
    if (isSecretCall(node.init) && isNode(node.id)) constants.add(String(node.id.name));
  });
  walk(program, (node) => {
    if (node.type !== 'Property' || keyOf(node) !== 'env' || !isNode(node.value)) return;
    for (const member of membersOf(node.value)) {
      const value = member.value;
      const isConstant =
        isNode(value) && value.type === 'Identifier' && constants.has(String(value.name));
      if (isSecretCall(value) || isConstant) variables.add(keyOf(member));
    }
  });
  return [...variables];
}

/** What is looked at of any node. */
interface AnyNode {
  readonly type: string;
  readonly init?: unknown;
  readonly id?: unknown;
  readonly key?: unknown;
  readonly value?: unknown;
  readonly name?: unknown;
  readonly callee?: unknown;
  readonly properties?: unknown;
}

function walk(root: unknown, visit: (node: AnyNode) => void): void {
  const open: unknown[] = [root];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (isNode(next)) visit(next);
    open.push(
      ...Object.values(next as object).filter(
        (value) => typeof value === 'object' && value !== null,
      ),
    );
  }
}

function isNode(value: unknown): value is AnyNode {
  return typeof value === 'object' && value !== null && 'type' in value;
}

function isSecretCall(value: unknown): boolean {
  if (!isNode(value) || value.type !== 'CallExpression' || !isNode(value.callee)) return false;
  return value.callee.name === 'secret';
}

function membersOf(object: AnyNode): AnyNode[] {
  const members = object.properties;
  if (!Array.isArray(members)) return [];
  return members.filter((member: unknown) => isNode(member) && member.type === 'Property');
}

function keyOf({ key }: AnyNode): string {
  return isNode(key) ? String(key.name ?? key.value) : '';
}
