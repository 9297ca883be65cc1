import { NodeClient } from '@hypha/client';
import { base64, type Grant, type Signer } from '@hypha/protocol';
import { generateKey } from '@hypha/protocol/node';
import { beforeAll, expect, test } from 'vitest';
import { nodeOfAllTests, until } from './testing/node-fixture.ts';

const fixture = await nodeOfAllTests();
let runA: string;
let runB: string;
beforeAll(async () => {
  [runA = '', runB = ''] = await Promise.all(
    ['a', 'b'].map(async (realm) => {
      const envelope = fixture.sign(`await volume('data', { size: 5 }); return 1;`, { realm });
      const run = await fixture.submit(envelope);
      await fixture.waitForEnd(run);
      return run;
    }),
  );
});

/** A client that the node knows as a viewer. */
async function viewer(scope: Partial<Grant>): Promise<{ signer: Signer; api: NodeClient }> {
  const { signer } = generateKey();
  const nowSeconds = Math.floor(Date.now() / 1000);
  await fixture.change({
    type: 'grant',
    grant: {
      ...{ name: 'viewer', role: 'viewer', realms: ['*'], caps: [], nodes: [], limits: null },
      publicKey: base64(signer.publicKey),
      notBefore: nowSeconds - 60,
      notAfter: nowSeconds + 3600,
      ...scope,
    },
  });
  const api = new NodeClient({ baseUrl: fixture.supervisor.url, signer });
  await until('the node knows the key', () => refusalOf(api).then((code) => code !== UNKNOWN));
  return { signer, api };
}

const UNKNOWN = 'E_UNAUTHENTICATED';

async function refusalOf(api: NodeClient): Promise<string | undefined> {
  return await api.listRuns().then(
    () => undefined,
    (error: { code: string }) => error.code,
  );
}

test('a request without a signature, or by a key nobody granted anything, reads nothing', async () => {
  const { url } = fixture.supervisor;
  for (const api of [
    new NodeClient({ baseUrl: url }),
    new NodeClient({ baseUrl: url, signer: generateKey().signer }),
  ]) {
    const reads = [
      () => api.listRuns(),
      () => api.run(runA),
      () => api.listResources(),
      () => api.facts(),
    ];
    for (const read of reads) await expect(read()).rejects.toMatchObject({ code: UNKNOWN });
  }
});

test('a viewer sees the runs and resources of its realms, and no others', async () => {
  const { api } = await viewer({ name: 'viewer-a', realms: ['a'] });
  expect((await api.listRuns()).items.map(({ run }) => run)).toEqual([runA]);
  expect((await api.listRuns({ deployment: 'b/web' })).items).toEqual([]);
  expect((await api.listResources()).items.map(({ realm }) => realm)).toEqual(['a']);
  const data = { deployment: 'web', kind: 'volume', name: 'data' };
  expect(await api.resource({ realm: 'a', ...data })).toMatchObject({ realm: 'a' });
  const signal = AbortSignal.timeout(10_000);
  const refused = [
    () => api.run(runB),
    () => api.journal(runB),
    () => api.output(runB),
    () => api.envelope(runB),
    () => api.receipt(runB),
    () => api.runEvents(runB, { signal }).next(),
    () => api.resource({ realm: 'b', ...data }),
    () => api.resourceLogs({ realm: 'b', ...data }, { signal }).next(),
  ];
  for (const read of refused) await expect(read()).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
  expect((await fixture.api.listRuns()).items).toHaveLength(2);
});

test('a key that was revoked, or whose time is over, reads nothing', async () => {
  const nowSeconds = Math.floor(Date.now() / 1000);
  const past = { notBefore: nowSeconds - 7200, notAfter: nowSeconds - 3600 };
  expect(await refusalOf((await viewer({ name: 'old', ...past })).api)).toBe('E_KEY_EXPIRED');
  const { signer, api } = await viewer({ name: 'short' });
  expect(await refusalOf(api)).toBeUndefined();
  await fixture.change({ type: 'revoke', keyid: signer.keyid, reason: 'gone' });
  await until('the node knows that', async () => (await refusalOf(api)) === 'E_KEY_REVOKED');
});
