import { once } from 'node:events';
import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import { signRequest } from '@hypha/client';
import { utf8 } from '@hypha/protocol';
import { generateKey } from '@hypha/protocol/node';
import { describe, expect, test } from 'vitest';
import { Echo, startTestServer, type TestServer } from './testing/test-server.ts';

const get = (path: string) => ({ method: 'GET', path, answer: Echo }) as const;

function echo(t: TestServer, id = t.nodeId) {
  const path = `/v1/nodes/${id}/echo`;
  return { method: 'POST', path, body: { a: 1 }, answer: Echo } as const;
}

/** A request whose every header is ours. */
async function send(
  t: TestServer,
  options: { path: string; method?: string; headers?: Record<string, string>; body?: string },
): Promise<{ status: number | undefined; code: unknown }> {
  const { path, method = 'GET', headers = {}, body = '' } = options;
  const outgoing = request({
    host: '127.0.0.1',
    port: new URL(t.url).port,
    path,
    method,
    headers,
    agent: false,
  });
  outgoing.end(body);
  const [answer] = await once(outgoing, 'response');
  const parsed: { code?: unknown } = JSON.parse(await text(answer));
  return { status: answer.statusCode, code: parsed.code };
}

function signed(
  t: TestServer,
  options: { path: string; method?: string; body?: string; nonce?: string; nowMs?: number },
): { path: string; method: string; body: string; headers: Record<string, string> } {
  const { path, method = 'GET', body = '', nonce = 'A'.repeat(22), nowMs = Date.now() } = options;
  const url = new URL(path, t.url);
  const headers = signRequest({ method, url, body: utf8(body) }, t.signer, { nowMs, nonce });
  return {
    path,
    method,
    body,
    headers: {
      host: url.host,
      ...headers,
      ...(body === '' ? {} : { 'content-type': 'application/json' }),
    },
  };
}

describe('a node route', () => {
  test('is for the node it names alone', async () => {
    await using t = await startTestServer();
    const other = generateKey().signer;
    expect(await t.clientOf(t.signer).request(echo(t))).toMatchObject({ keyid: t.signer.keyid });
    await expect(t.clientOf().request(echo(t))).rejects.toMatchObject({
      code: 'E_UNAUTHENTICATED',
    });
    await expect(t.clientOf(other).request(echo(t))).rejects.toMatchObject({
      code: 'E_UNAUTHENTICATED',
    });
    await expect(t.clientOf(t.signer).request(echo(t, 'node_other'))).rejects.toMatchObject({
      code: 'E_FORBIDDEN',
    });
    await expect(t.clientOf(t.viewer).request(echo(t))).rejects.toMatchObject({
      code: 'E_FORBIDDEN',
    });
  });

  test('is refused before anything of it is read', async () => {
    await using t = await startTestServer();
    const wrong = { ...echo(t), body: { nonsense: true } };
    await expect(t.clientOf().request(wrong)).rejects.toMatchObject({ code: 'E_UNAUTHENTICATED' });
    await expect(t.clientOf(t.signer).request(wrong)).rejects.toMatchObject({ code: 'E_REQUEST' });
  });
});

describe('a read', () => {
  test('needs a signature, also on this machine', async () => {
    await using t = await startTestServer();
    await expect(t.clientOf().request(get('/v1/read'))).rejects.toMatchObject({
      code: 'E_UNAUTHENTICATED',
      hint: expect.stringContaining('keys.operator'),
    });
    expect(await t.clientOf(t.viewer).request(get('/v1/read'))).toMatchObject({
      keyid: t.viewer.keyid,
    });
    await expect(t.clientOf(generateKey().signer).request(get('/v1/read'))).rejects.toMatchObject({
      code: 'E_UNAUTHENTICATED',
    });
  });
});

test('a route for some roles is for no other, and says which', async () => {
  await using t = await startTestServer();
  await expect(t.clientOf(t.viewer).request(get('/v1/service'))).rejects.toMatchObject({
    code: 'E_FORBIDDEN',
    where: { path: 'node' },
  });
});

test('a route for roles needs a signature, and a public one looks at none', async () => {
  await using t = await startTestServer();
  await expect(t.clientOf().request(get('/v1/service'))).rejects.toMatchObject({
    code: 'E_UNAUTHENTICATED',
  });
  expect(await t.clientOf(t.signer).request(get('/v1/service'))).toMatchObject({
    keyid: t.signer.keyid,
  });
  expect(await t.clientOf(generateKey().signer).request(get('/v1/public'))).toMatchObject({
    keyid: null,
  });
});

describe('a signature', () => {
  test('is good once', async () => {
    await using t = await startTestServer();
    const first = signed(t, { path: '/v1/service' });
    expect(await send(t, first)).toMatchObject({ status: 200 });
    expect(await send(t, first)).toMatchObject({ status: 401 });
    expect(await send(t, signed(t, { path: '/v1/service', nonce: 'B'.repeat(22) }))).toMatchObject({
      status: 200,
    });
  });

  test.for([
    ['is over a minute old', -61_000, 401],
    ['is a moment old', -50_000, 200],
    ['comes from a clock a little ahead', 50_000, 200],
    ['comes from a clock far ahead', 62_000, 401],
  ] as const)('that %s', async ([, offsetMs, status]) => {
    await using t = await startTestServer();
    const sent = signed(t, { path: '/v1/service', nowMs: Date.now() + offsetMs });
    expect(await send(t, sent)).toMatchObject({ status });
  });

  test('that lives longer than a minute is refused', async () => {
    await using t = await startTestServer();
    const sent = signed(t, { path: '/v1/service' });
    const created = /created=(\d+)/.exec(sent.headers['signature-input'] ?? '')?.[1];
    const input = sent.headers['signature-input']?.replace(
      /expires=\d+/,
      `expires=${Number(created) + 61}`,
    );
    expect(
      await send(t, { ...sent, headers: { ...sent.headers, 'signature-input': input ?? '' } }),
    ).toMatchObject({ status: 401 });
  });

  test('holds for its own target and body only', async () => {
    await using t = await startTestServer();
    const path = `/v1/nodes/${t.nodeId}/echo`;
    let n = 0;
    const fresh = (body = '{"a":1}') => {
      return signed(t, { path, method: 'POST', body, nonce: String(n++).padStart(22, '0') });
    };
    expect(await send(t, fresh())).toMatchObject({ status: 202 });
    expect(await send(t, { ...fresh(), path: `${path}?limit=5` })).toMatchObject({ status: 401 });
    expect(await send(t, { ...fresh(), body: '{"a":2}' })).toMatchObject({ status: 401 });
    const swapped = fresh();
    const digest = fresh('{"a":2}').headers['content-digest'] ?? '';
    expect(
      await send(t, {
        ...swapped,
        body: '{"a":2}',
        headers: { ...swapped.headers, 'content-digest': digest },
      }),
    ).toMatchObject({ status: 401 });
  });

  test('that an earlier process may have seen is refused, and the client signs again', async () => {
    await using t = await startTestServer(undefined, { startedAgoMs: 0 });
    const before = signed(t, { path: '/v1/service', nowMs: Date.now() - 5_000 });
    expect(await send(t, before)).toMatchObject({ status: 401, code: 'E_UNAUTHENTICATED' });
    const slow = t.clientOf(t.signer, -5_000);
    expect(await slow.request(get('/v1/service'))).toMatchObject({ keyid: t.signer.keyid });
    // Only because of its time: another refusal is not tried again.
    const stranger = t.clientOf(generateKey().signer);
    await expect(stranger.request(get('/v1/service'))).rejects.toMatchObject({
      message: expect.stringContaining('is not known here'),
    });
  });
});
