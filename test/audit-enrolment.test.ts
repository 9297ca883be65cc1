/** Who was a node when: the audit of a fleet whose machines change keys, are replaced and are revoked. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AuditBundle } from '@hypha/protocol';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Fleet } from './fixtures/fleet.ts';
import { JoiningMachine } from './fixtures/joining-machine.ts';

const TEST_MS_MAX = 120_000;
const SCRIPT = `export const deployment = { name: 'kept' };
export default async function deploy() {}
`;

let fleet: Fleet;
beforeAll(async () => {
  fleet = await Fleet.start('--nodes', '0');
});
afterAll(async () => fleet?.[Symbol.asyncDispose]());

async function apply(machine: JoiningMachine): Promise<string> {
  const script = join(machine.state, 'kept.ts');
  writeFileSync(script, SCRIPT);
  const view = JSON.parse(await fleet.output('apply', script, '--node', machine.id, '-o', 'json'));
  return (view as { run: string }).run;
}

test('a machine that changes its key: what both keys signed is proven, and the log is complete', {
  timeout: TEST_MS_MAX,
}, async () => {
  await using machine = new JoiningMachine(fleet.portBase + 2);
  await machine.join(await fleet.addNode('renewed'));
  const first = await apply(machine);
  const id = await machine.rekey();
  const second = await apply(machine);
  for (const [run, replaced] of [
    [first, 0],
    [second, 1],
  ] as const) {
    const file = join(machine.state, `${run}.json`);
    await fleet.output('audit', 'export', run, '--out', file);
    expect(await fleet.output('audit', 'verify', file)).toContain('receipt verified');
    const bundle = JSON.parse(readFileSync(file, 'utf8')) as Extract<AuditBundle, { v: 2 }>;
    expect(bundle.replaced).toHaveLength(replaced);
  }
  await fleet.output('authority', 'revoke-node', 'renewed');
  // What it signed before is as good as it was.
  const again = join(machine.state, 'again.json');
  await fleet.output('audit', 'export', second, '--out', again);
  expect(await fleet.output('audit', 'verify', again)).toContain('receipt verified');
  const log = await fleet.output('audit', 'log');
  expect(log).toMatch(
    new RegExp(`renewed \\(${id.slice(0, 20)}…\\) enrolled from .*, in the place of`),
  );
  expect(log).toMatch(/ revoked the node renewed /);
  expect(log.trimEnd().split('\n').at(-1)).toMatch(/^complete: /);
});
