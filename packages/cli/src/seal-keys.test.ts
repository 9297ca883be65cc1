import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  base64,
  base64url,
  type Envelope,
  fromBase64,
  openSecrets,
  type SecretValues,
  signEnrolment,
} from '@hypha/protocol';
import {
  admitNode,
  createFleet,
  createKey,
  enrolmentOf,
  FACTS,
  openTempDir,
  scriptPayloadOf,
  type TestNode,
} from '@hypha/testkit';
import { afterEach, expect, test } from 'vitest';
import { readEnvironment } from './config.ts';
import { sealForNodes } from './seal-keys.ts';
import { Session } from './session.ts';
import { FakeServices } from './testing/fake-services.ts';

const YEAR_SECONDS = 31_536_000;
const fleet = createFleet();
const node = admitNode(fleet);
/** As a hostile coordinator would propose one. */
const invented: TestNode = { ...admitNode({ admin: createKey() }), name: 'invented' };
const closing: AsyncDisposable[] = [];
afterEach(async () => {
  for (const each of closing.splice(0)) await each[Symbol.asyncDispose]();
});

function newSealKey(): { publicKey: Uint8Array; secretKey: Uint8Array } {
  const jwk = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
  const [publicKey, secretKey] = [jwk.x, jwk.d].map((text) => fromBase64(text ?? ''));
  return { publicKey: publicKey ?? new Uint8Array(), secretKey: secretKey ?? new Uint8Array() };
}

/** A statement of the node's key that names a sealing key, some seconds after now. */
function statementOf(of: TestNode, sealKey: Uint8Array, laterSeconds: number): Envelope {
  return signEnrolment(
    {
      v: 1,
      publicKey: base64(of.key.publicKey),
      sealKey: base64(sealKey),
      admission: of.admission,
      token: base64url(of.token),
      challenge: 'c'.repeat(22),
      bootId: 'boot',
      iat: Math.floor(Date.now() / 1000) + laterSeconds,
      facts: FACTS,
    },
    of.key,
  );
}

/** Seals for the node by what a ledger with this log says of it. */
async function seal(
  log: readonly Envelope[],
  secrets: SecretValues,
  of = node,
): Promise<{ box: string; context: { realm: string; node: string; id: string } }> {
  const services = await FakeServices.start(
    fleet,
    log.map((envelope) => ({ node: of.id, envelope })),
  );
  const dir = await openTempDir();
  closing.push(services, dir);
  writeFileSync(join(dir.path, 'context.json'), JSON.stringify(services.context({})));
  const session = new Session(
    { output: 'json', state: dir.path },
    { ...readEnvironment(), HYPHA_STATE: dir.path },
  );
  const payload = scriptPayloadOf(fleet, { draft: { nodes: [of.id] } });
  const boxes = await sealForNodes(session, payload, secrets);
  return {
    box: boxes[of.id] ?? '',
    context: { realm: payload.realm, node: of.id, id: payload.id },
  };
}

test('secrets are sealed to the key that the node named last, long after it joined', async () => {
  const [first, second, third] = [newSealKey(), newSealKey(), newSealKey()];
  const { box, context } = await seal(
    [
      statementOf(node, first.publicKey, 0),
      statementOf(node, third.publicKey, YEAR_SECONDS),
      statementOf(node, second.publicKey, 60),
    ],
    { token: 'hush' },
  );
  const open = (secretKey: Uint8Array) => openSecrets(box, { context, secretKeys: [secretKey] });
  expect(open(third.secretKey)).toEqual({ token: 'hush' });
  expect(() => open(first.secretKey)).toThrow(/not sealed to this node/);
  expect(() => open(second.secretKey)).toThrow(/not sealed to this node/);
});

test('what another node said counts for nothing', async () => {
  const [own, foreign] = [newSealKey(), newSealKey()];
  const { box, context } = await seal(
    [
      statementOf(node, own.publicKey, 0),
      statementOf(admitNode(fleet, { name: 'other' }), foreign.publicKey, 60),
    ],
    { token: 'hush' },
  );
  expect(openSecrets(box, { context, secretKeys: [own.secretKey] })).toEqual({ token: 'hush' });
});

test.for([
  ['that no admin let in', (): Envelope | undefined => enrolmentOf(invented)],
  ['that has not joined', (): Envelope | undefined => undefined],
] as const)('nothing is sealed to a node %s', async ([, statement]) => {
  const log = [statement()].flatMap((envelope) => (envelope === undefined ? [] : [envelope]));
  await expect(seal(log, { token: 'hush' }, invented)).rejects.toMatchObject({
    name: 'HyphaError',
  });
});

test('nothing is asked of the ledger when there is nothing to seal', async () => {
  expect(await seal([], {}, invented)).toMatchObject({ box: '' });
});
