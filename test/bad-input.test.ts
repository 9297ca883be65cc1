/** What the issue lists as bad input, against real processes: a stable code, a hint, and nothing done. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HyphaError, Problem, type RunView } from '@hypha/protocol';
import { generateKey, readKeyFile } from '@hypha/protocol/node';
import { badScripts } from '@hypha/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Fleet } from './fixtures/fleet.ts';
import { SignedRuns } from './fixtures/signed-runs.ts';

const NOOP = 'export default async function deploy() { return null; }\n';
const OTHER_NODE = `node_${'a'.repeat(32)}`;

let fleet: Fleet;
let runs: SignedRuns;

beforeAll(async () => {
  fleet = await Fleet.start('--sals', 'simulated');
  runs = await SignedRuns.open(fleet);
});
afterAll(async () => fleet?.[Symbol.asyncDispose]());

const places = {
  coordinator: () => fleet.line.coordinator.url,
  node: () => fleet.line.nodes[0]?.url ?? '',
} as const;
type Place = keyof typeof places;

async function post(place: Place, body: Uint8Array | string): Promise<Problem> {
  const answer = await fetch(`${places[place]()}/v1/deployments`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : Buffer.from(body),
  });
  expect(answer.headers.get('content-type')).toContain('application/problem+json');
  const problem = Problem.parse(await answer.json());
  expect(problem.status).toBe(answer.status);
  return problem;
}

async function knownRuns(): Promise<string[]> {
  const lists = await Promise.all([
    fleet.coordinator.listRuns({ limit: 500 }),
    fleet.node.listRuns({ limit: 500 }),
  ]);
  // A run that went straight to the node shows up at the coordinator a moment later.
  return [...new Set(lists.flatMap(({ items }) => items.map(({ run }) => run)))].sort();
}

/** Refused with this code and a hint; the services know no run more than before and still answer. */
async function expectRefusal(
  place: Place,
  body: Uint8Array | string,
  code: string,
): Promise<Problem> {
  const before = await knownRuns();
  const problem = await post(place, body);
  expect(problem.code).toBe(code);
  expect(problem.hint.length).toBeGreaterThan(10);
  expect(await knownRuns()).toEqual(before);
  return problem;
}

const submission = (envelope: unknown) => JSON.stringify({ envelope });

describe.each(['coordinator', 'node'] as const)('the %s', (place) => {
  test('refuses every way an envelope can be wrong by itself, each with its code', async () => {
    const bad = badScripts(await keysOf(fleet), { draft: { nodes: nodeIds() } });
    expect(bad.length).toBeGreaterThan(20);
    for (const { name, code, body } of bad) {
      const problem = await post(place, body);
      expect({ name, code: problem.code }).toEqual({ name, code });
      expect(problem.hint.length).toBeGreaterThan(10);
    }
  });

  test('refuses a revoked key', async () => {
    const key = generateKey();
    const file = join(fleet.state, 'keys', `short-lived-${place}.pem`);
    writeFileSync(file, key.pem, { mode: 0o600 });
    const name = `short-lived-${place}`;
    expect((await fleet.hypha('authority', 'grant', file, '--name', name)).code).toBe(0);
    const revoked = await fleet.hypha('authority', 'revoke', name);
    expect(revoked.code).toBe(0);
    const envelope = runs.sign(
      { deployment: 'revoked', generation: 1, source: NOOP },
      readKeyFile(file),
    );
    // Whoever knows of the revocation can bring it along: nobody has to wait until it is heard of.
    const { items: authority } = await fleet.ledger.authority();
    await expectRefusal(place, JSON.stringify({ envelope, authority }), 'E_KEY_REVOKED');
  });

  test('refuses a nonce that was used, an id that was used, and an older generation', async () => {
    const deployment = `marks-${place}`;
    const first = runs.draft({ deployment, generation: 5, source: NOOP });
    await runs.complete(runs.signPayload(first));
    const again = runs.draft({ deployment, generation: 6, source: NOOP });
    const reused = [
      { ...again, nonce: first.nonce },
      { ...again, id: first.id },
    ];
    for (const payload of reused) {
      await expectRefusal('node', submission(runs.signPayload(payload)), 'E_REPLAY');
    }
    const older = runs.sign({ deployment, generation: 4, source: NOOP });
    await expectRefusal('node', submission(older), 'E_SUPERSEDED');
    const equal = runs.sign({ deployment, generation: 5, source: NOOP });
    await expectRefusal('node', submission(equal), 'E_CONFLICT');
  });

  test('refuses a script that does not parse, naming the line', async () => {
    const source = 'export default async function deploy() {\n  const x = ;\n}\n';
    const envelope = runs.sign({ deployment: 'syntax', generation: 1, source });
    const problem = await expectRefusal(place, submission(envelope), 'E_SCRIPT_SYNTAX');
    expect(problem.where).toMatchObject({ line: 2 });
  });

  test('answers the same envelope with the same run', async () => {
    const envelope = runs.sign({ deployment: `same-${place}`, generation: 1, source: NOOP });
    const client = place === 'node' ? fleet.node : fleet.coordinator;
    const first = await client.submit({ envelope });
    const second = await client.submit({ envelope });
    expect(first.existing).toBeUndefined();
    expect(second).toEqual({ ...first, existing: true });
  });
});

test('an envelope for another node is refused at the node', async () => {
  const payload = { ...runs.draft({ deployment: 'aud', generation: 1, source: NOOP }) };
  const envelope = runs.signPayload({ ...payload, aud: { nodes: [OTHER_NODE], count: 1 } });
  await expectRefusal('node', submission(envelope), 'E_AUDIENCE');
});

test('an envelope for a node nobody knows finds no placement at the coordinator', async () => {
  const payload = { ...runs.draft({ deployment: 'aud', generation: 1, source: NOOP }) };
  const envelope = runs.signPayload({ ...payload, aud: { nodes: [OTHER_NODE], count: 1 } });
  await expectRefusal('coordinator', submission(envelope), 'E_NO_PLACEMENT');
});

const RUN_REFUSALS = [
  {
    what: 'an image that does not exist',
    code: 'E_IMAGE',
    call: "await container('web', { image: 'oci:/nowhere/layout:web', memory: '16MiB', cpus: 0.01 });",
  },
  { what: 'a name with a slash', code: 'E_NAME', call: "await volume('a/b', { size: '1MiB' });" },
  {
    what: 'a name with a leading dash',
    code: 'E_NAME',
    call: "await volume('-a', { size: '1MiB' });",
  },
  {
    what: 'more than limits.resources',
    code: 'E_RESOURCES',
    call: "await volume('data', { size: '100GiB' });",
  },
] as const;

test.each(RUN_REFUSALS)(
  '$what fails the run with $code and leaves nothing',
  async ({ what, code, call }) => {
    const deployment = `bad-${what.replaceAll(/[^a-z]+/g, '-')}`;
    const source = `import { container, volume } from 'hypha';
export default async function deploy() {
  await volume('first', { size: '1MiB' });
  ${call}
}
`;
    const draft = { deployment, source, caps: ['container', 'volume'] };
    const view = await runs.finish(runs.sign({ ...draft, generation: 1 }));
    expect(view.state).toBe('failed');
    expect(view.problem?.code).toBe(code);
    expect(view.problem?.hint.length).toBeGreaterThan(10);
    expect(view.problem?.where).toMatchObject({ line: 4 });
    const { items } = await fleet.node.listResources({ deployment: draft.deployment });
    expect(items).toEqual([]);
  },
);

test("the CLI names the operator's own file, line and column", async () => {
  const file = join(fleet.state, 'throws.ts');
  writeFileSync(
    file,
    `import { log } from 'hypha';
export const deployment = { name: 'throws' };
interface Answer { readonly value: number }
export default async function deploy() {
  const answer: Answer = { value: 42 };
  log('about to fail', { answer: answer.value });
  throw new TypeError('as planned');
}
`,
  );
  const { code, stdout } = await fleet.hypha('apply', file, '--cpus', '0.1');
  expect(code).toBe(1);
  expect(stdout).toContain('E_SCRIPT');
  expect(stdout).toContain('as planned');
  expect(stdout).toMatch(/throws\.ts:7:\d+/);
  expect(stdout).not.toContain('script.js');
});

test('a broken script is refused before anything is signed', async () => {
  const file = join(fleet.state, 'broken.ts');
  writeFileSync(file, 'export default async function deploy() {\n  const x = ;\n}\n');
  const before = await knownRuns();
  const { code, stderr } = await fleet.hypha('apply', file, '--name', 'broken');
  expect(code).toBe(2);
  expect(stderr).toMatch(/E_SCRIPT_SYNTAX.*\n.*broken\.ts:2:\d+/);
  expect(await knownRuns()).toEqual(before);
});

function nodeIds(): string[] {
  return fleet.line.nodes.map(({ id }) => id);
}

async function keysOf(of: Fleet) {
  return { authority: await runs.authorityOf(of), operator: operatorOf(of) };
}

function operatorOf(of: Fleet) {
  return { ...readKeyFile(of.line.operator.keyFile), pem: '' };
}

test('the services are still up after all of it', async () => {
  const { code, stdout } = await fleet.hypha('status', '-o', 'json');
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toHaveLength(3);
  const view: RunView = await runs.finish(
    runs.sign({ deployment: 'after', generation: 1, source: NOOP }),
  );
  expect(view.state).toBe('succeeded');
});

test('reading what is not there is a problem document too', async () => {
  await expect(fleet.node.run(`run_${'a'.repeat(26)}`)).rejects.toThrow(HyphaError);
});
