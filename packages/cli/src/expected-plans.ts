import { readFileSync } from 'node:fs';
import { HyphaError, PlanDocument, Sha256Hex } from '@hypha/protocol';

interface Target {
  readonly id: string;
  readonly name: string;
}

/**
 * `expect` of the payload from what the operator said: the hash of the one node's plan, `NODE=HASH`, or `@FILE` with
 * what `hypha plan -o json` printed. Undefined when nothing is expected.
 * @throws HyphaError `E_ARGUMENT` for what is no hash, a node that is not asked, or one without a hash;
 *   `E_PLAN_PARTIAL` for a plan in the file that is not whole
 */
export function readExpected(
  texts: readonly string[],
  targets: readonly Target[],
): Readonly<Record<string, string>> | undefined {
  if (texts.length === 0) return undefined;
  const expected = Object.fromEntries(texts.flatMap((text) => readOne(text, targets)));
  const without = targets.find(({ id }) => expected[id] === undefined);
  if (without === undefined) return expected;
  throw refuse(`no plan is expected on ${without.name}`, 'name one for each node: NODE=HASH');
}

function readOne(text: string, targets: readonly Target[]): [string, string][] {
  if (text.startsWith('@')) return readPlans(text.slice(1), targets);
  const at = text.lastIndexOf('=');
  const [only, second] = targets;
  if (at < 0 && second !== undefined) {
    throw refuse(`${targets.length} nodes are asked, and one hash is given`, 'say NODE=HASH');
  }
  const id = at < 0 ? (only?.id ?? '') : findTarget(text.slice(0, at), targets);
  const hash = text.slice(at + 1);
  if (Sha256Hex.safeParse(hash).success) return [[id, hash]];
  throw refuse(
    `not a plan hash: ${JSON.stringify(hash)}`,
    'it is the last line of: hypha plan FILE',
  );
}

function findTarget(name: string, targets: readonly Target[]): string {
  const found = targets.find((target) => target.id === name || target.name === name);
  if (found !== undefined) return found.id;
  const names = targets.map((target) => target.name).join(', ');
  throw refuse(`${name} is not asked`, `this goes to ${names}`);
}

function readPlans(file: string, targets: readonly Target[]): [string, string][] {
  const plans = parsePlans(file);
  return plans.map(({ node, hash, state, reason }) => {
    if (state === 'partial' || hash === undefined) {
      throw new HyphaError(
        'E_PLAN_PARTIAL',
        `the plan of ${node} in ${file} is partial: ${reason}`,
        {
          where: { path: '--expect' },
        },
      );
    }
    return [findTarget(node, targets), hash];
  });
}

/** One document, a list of them, or one a line. */
function parsePlans(file: string): PlanDocument[] {
  const text = readFileSync(file, 'utf8');
  try {
    const values = text
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => JSON.parse(line) as unknown);
    return values.flat().map((value) => PlanDocument.parse(value));
  } catch {
    return parseWhole(file, text);
  }
}

function parseWhole(file: string, text: string): PlanDocument[] {
  try {
    return [JSON.parse(text)].flat().map((value: unknown) => PlanDocument.parse(value));
  } catch (cause) {
    throw new HyphaError('E_ARGUMENT', `--expect: ${file} holds no plan`, {
      cause,
      hint: 'make one: hypha plan FILE -o json > plan.json',
    });
  }
}

function refuse(what: string, hint: string): HyphaError {
  return new HyphaError('E_ARGUMENT', `--expect: ${what}`, { hint });
}
