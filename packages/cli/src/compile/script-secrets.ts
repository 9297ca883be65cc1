import { type Expression, parse } from 'acorn';

/**
 * Names in `deployment.secrets` of a compiled script, read without running it: whoever signs it need not trust
 * it. Empty when it has none, does not spell them out, or is no script.
 */
export function readSecretNames(source: string): string[] {
  const secrets = memberOf(findDeployment(source), 'secrets');
  if (secrets?.type !== 'ArrayExpression') return [];
  return secrets.elements.flatMap((element) =>
    element?.type === 'Literal' && typeof element.value === 'string' ? [element.value] : [],
  );
}

function findDeployment(source: string): Expression | null | undefined {
  const statements = parseOrNothing(source).map((statement) =>
    statement.type === 'ExportNamedDeclaration' ? statement.declaration : statement,
  );
  return statements
    .flatMap((found) => (found?.type === 'VariableDeclaration' ? found.declarations : []))
    .find(({ id }) => id.type === 'Identifier' && id.name === 'deployment')?.init;
}

function parseOrNothing(source: string) {
  try {
    return parse(source, { ecmaVersion: 2023, sourceType: 'module' }).body;
  } catch {
    return [];
  }
}

function memberOf(object: Expression | null | undefined, wanted: string): Expression | undefined {
  if (object?.type !== 'ObjectExpression') return undefined;
  for (const property of object.properties) {
    if (property.type !== 'Property' || property.computed) continue;
    const { key } = property;
    const name = key.type === 'Identifier' ? key.name : key.type === 'Literal' ? key.value : '';
    if (name === wanted) return property.value;
  }
  return undefined;
}
