import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { HyphaError, Json } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { createLogger, createServer } from './index.ts';
import { Echo, startTestServer, type TestServer } from './testing/test-server.ts';

async function problemOf(answer: Response): Promise<{ status: number; code: string }> {
  expect(answer.headers.get('content-type')).toBe('application/problem+json');
  const problem = z.looseObject({ code: z.string(), hint: z.string() }).parse(await answer.json());
  return { ...problem, status: answer.status };
}

function post(t: TestServer, init: RequestInit): Promise<Response> {
  return fetch(`${t.url}/v1/plain`, { method: 'POST', ...init });
}

/** Everything is written before anything is read, as simple clients do. */
async function sendThenRead(t: TestServer, lines: readonly string[]): Promise<string> {
  const socket = connect(Number(new URL(t.url).port), '127.0.0.1');
  socket.pause();
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.write(lines.join('\r\n'), () => resolve());
  });
  return text(socket);
}

function startPlainServer(): Promise<TestServer> {
  return startTestServer((server) => {
    server.route({
      method: 'POST',
      path: '/v1/plain',
      auth: 'public',
      summary: 'Any JSON with a.',
      body: z.strictObject({ a: z.int(), more: z.strictObject({ b: Json }).optional() }),
      bodyBytesMax: 1000,
      answer: z.object({ a: z.int() }),
      handle: ({ body }) => ({ a: body.a }),
    });
    server.route({
      method: 'GET',
      path: '/v1/broken',
      auth: 'public',
      summary: 'Fails.',
      answer: z.unknown(),
      handle: () => {
        throw new Error('secret inside');
      },
    });
  });
}

describe('a route', () => {
  test('gets what its schemas made of params, query and body', async () => {
    await using t = await startTestServer();
    const answer = await t.clientOf(t.signer).request({
      method: 'POST',
      path: `/v1/nodes/${t.nodeId}/echo`,
      query: { limit: 7 },
      body: { a: 1 },
      answer: Echo,
    });
    expect(answer).toEqual({ a: 1, id: t.nodeId, limit: 7, keyid: t.signer.keyid });
  });

  test('answers with its own status, as JSON without a charset', async () => {
    await using t = await startPlainServer();
    const answer = await fetch(`${t.url}/v1/public`);
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-type')).toBe('application/json');
    expect(answer.headers.get('cache-control')).toBe('no-store');
  });

  const json = { 'content-type': 'application/json' };
  test.for([
    ['a body that is no JSON', { headers: json, body: '{' }, 400, 'E_REQUEST'],
    ['an empty body', { headers: json, body: '' }, 400, 'E_REQUEST'],
    ['a key twice', { headers: json, body: '{"a":1,"a":2}' }, 400, 'E_REQUEST'],
    ['a prototype key', { headers: json, body: '{"a":1,"__proto__":{}}' }, 400, 'E_REQUEST'],
    ['an unknown key', { headers: json, body: '{"a":1,"b":2}' }, 400, 'E_REQUEST'],
    ['a wrong type', { headers: json, body: '{"a":"1"}' }, 400, 'E_REQUEST'],
    [
      'too deep a body',
      { headers: json, body: `{"a":1,"more":${'['.repeat(400)}` },
      400,
      'E_REQUEST',
    ],
    [
      'broken UTF-8',
      { headers: json, body: Buffer.from('7b2261223a22ff227d', 'hex') },
      400,
      'E_REQUEST',
    ],
    ['too long a body', { headers: json, body: `{"a":${' '.repeat(1000)}1}` }, 413, 'E_SIZE'],
    ['text', { body: '{"a":1}' }, 415, 'E_TYPE'],
    [
      'a form',
      { headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: 'a=1' },
      415,
      'E_TYPE',
    ],
    [
      'another charset',
      { headers: { 'content-type': 'application/json; charset=utf-16' }, body: '{"a":1}' },
      415,
      'E_TYPE',
    ],
    [
      'an encoding',
      { headers: { ...json, 'content-encoding': 'gzip' }, body: '{"a":1}' },
      415,
      'E_TYPE',
    ],
  ] as const)('refuses %s', async ([, init, status, code]) => {
    await using t = await startPlainServer();
    expect(await problemOf(await post(t, init))).toMatchObject({ status, code });
  });

  test('names the field that does not fit', async () => {
    await using t = await startPlainServer();
    const body = '{"a":1,"more":{"b":1,"c":2}}';
    const init = { headers: { 'content-type': 'application/json; charset=UTF-8' }, body };
    expect(await problemOf(await post(t, init))).toMatchObject({ where: { path: 'more.c' } });
    for (const [query, path] of [
      ['limit=0', 'query.limit'],
      ['limit=1e2', 'query.limit'],
      ['limit=1&limit=2', 'query.limit'],
      ['unknown=1', 'query.unknown'],
      ['__proto__=1', 'query.__proto__'],
    ] as const) {
      const answer = await fetch(`${t.url}/v1/public?${query}`);
      expect(await problemOf(answer)).toMatchObject({ code: 'E_REQUEST', where: { path } });
    }
  });

  test('lets nothing of an unexpected error out', async () => {
    await using t = await startPlainServer();
    const answer = await fetch(`${t.url}/v1/broken`);
    const body = await answer.text();
    expect(answer.status).toBe(500);
    expect(JSON.parse(body)).toMatchObject({ code: 'E_INTERNAL', detail: 'GET /v1/broken failed' });
    expect(body).not.toContain('secret');
  });

  test('that is not there is a problem too', async () => {
    await using t = await startTestServer();
    for (const [path, method] of [
      ['/v1/nothing', 'GET'],
      ['//v1/public', 'GET'],
      ['/v1/public/', 'GET'],
    ] as const) {
      const answer = await fetch(`${t.url}${path}`, { method });
      expect(await problemOf(answer)).toMatchObject({ status: 404, code: 'E_NOT_FOUND' });
    }
  });

  test('says which methods it has when asked with another', async () => {
    await using t = await startPlainServer();
    for (const [path, method, allow] of [
      ['/v1/public', 'DELETE', 'GET'],
      ['/v1/public', 'POST', 'GET'],
      ['/v1/plain', 'GET', 'POST'],
      ['/v1/nodes/x/echo', 'PUT', 'POST'],
      ['/healthz', 'POST', 'GET'],
      ['/metrics', 'PATCH', 'GET'],
    ] as const) {
      const body = method === 'GET' ? {} : { body: 'not looked at' };
      const answer = await fetch(`${t.url}${path}`, { method, ...body });
      expect(answer.headers.get('allow'), path).toBe(allow);
      expect(await problemOf(answer)).toMatchObject({ status: 405, code: 'E_METHOD' });
    }
    const head = await fetch(`${t.url}/v1/public`, { method: 'HEAD' });
    expect(head.status).toBe(405);
  });

  test('whose target is malformed is a problem too', async () => {
    await using t = await startTestServer();
    for (const path of ['/v1/%zz', '/%', `/v1/nodes/${'x'.repeat(200)}/echo`]) {
      const { status, code } = await problemOf(await fetch(`${t.url}${path}`));
      expect([400, 404], `${path} ${code}`).toContain(status);
    }
  });

  test.for([
    ['over the limit', 'content-type: application/json', 413, 'E_SIZE'],
    ['of another type', 'content-type: text/plain', 415, 'E_TYPE'],
  ] as const)(
    'answers a client that reads only after sending a large body %s',
    async ([, header, status, code]) => {
      await using t = await startPlainServer();
      // More than socket buffers hold.
      const body = Buffer.alloc(16 * 1024 * 1024, ' ');
      const answer = await sendThenRead(t, [
        'POST /v1/plain HTTP/1.1',
        'host: localhost',
        'connection: close',
        header,
        `content-length: ${body.length}\r\n\r\n${body}`,
      ]);
      expect(answer).toContain(`HTTP/1.1 ${status} `);
      expect(answer).toContain(`"code":"${code}"`);
    },
  );

  test('refuses a request without a host, except in HTTP/1.0, with a problem', async () => {
    await using t = await startPlainServer();
    const answer = await sendThenRead(t, ['GET /healthz HTTP/1.1', 'connection: close', '', '']);
    expect(answer).toMatch(
      /^HTTP\/1\.1 400 [\s\S]*application\/problem\+json[\s\S]*"code":"E_REQUEST"/,
    );
    expect(await sendThenRead(t, ['GET /healthz HTTP/1.0', '', ''])).toMatch(/^HTTP\/1\.1 200 /);
  });

  test('names the body when it is wrong as a whole', async () => {
    await using t = await startPlainServer();
    const answer = await post(t, { headers: json, body: '[]' });
    expect(await problemOf(answer)).toMatchObject({ where: { path: 'body' } });
  });

  test('survives what is not HTTP', async () => {
    await using t = await startTestServer();
    const socket = connect(Number(new URL(t.url).port), '127.0.0.1');
    socket.on('error', () => undefined);
    socket.end('nonsense\r\n\r\n');
    const answer = await text(socket);
    expect(answer).toMatch(
      /^HTTP\/1\.1 400 Bad Request\r\ncontent-type: application\/problem\+json/,
    );
    expect(answer).toContain('"code":"E_REQUEST"');
    expect((await fetch(`${t.url}/v1/public`)).status).toBe(200);
  });
});

describe('every service', () => {
  test('says that it lives and, apart from that, whether it can work', async () => {
    let reason: string | undefined = 'waiting for the ledger';
    const server = createServer({
      name: 'test',
      version: '1',
      log: createLogger({ name: 'test', level: 'silent' }),
      checkReady: () => {
        if (reason !== undefined) throw new HyphaError('E_UNAVAILABLE', reason);
      },
    });
    const url = await server.listen({ host: '127.0.0.1', port: 0 });
    try {
      expect((await fetch(`${url}/healthz`)).status).toBe(200);
      const answer = await fetch(`${url}/readyz`);
      expect(await problemOf(answer)).toMatchObject({ status: 503, detail: reason });
      reason = undefined;
      expect((await fetch(`${url}/readyz`)).status).toBe(200);
    } finally {
      await server.close();
    }
  });

  test('serves its numbers', async () => {
    await using t = await startTestServer((server) =>
      server.gauge('test_things', 'Things.', () => 42),
    );
    await fetch(`${t.url}/v1/public`);
    const numbers = await (await fetch(`${t.url}/metrics`)).text();
    expect(numbers).toContain('test_things 42');
    expect(numbers).toContain(
      'hypha_http_request_seconds_count{method="GET",route="/v1/public",status="200"} 1',
    );
    expect(numbers).toMatch(/process_resident_memory_bytes \d+/);
  });

  test('describes its routes, every reference resolved', async () => {
    await using t = await startPlainServer();
    const document = await (await fetch(`${t.url}/openapi.json`)).json();
    expect(document).toMatchObject({
      openapi: '3.1.0',
      paths: {
        '/v1/nodes/{id}/echo': {
          post: {
            operationId: 'postNodesIdEcho',
            security: [{ requestSignature: ['node'] }],
            parameters: [
              { name: 'id', in: 'path', required: true },
              { name: 'limit', in: 'query', required: false },
              { name: 'cursor', in: 'query', required: false },
            ],
            responses: { '202': {} },
          },
        },
        '/healthz': { get: {} },
      },
    });
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)];
    // The recursive JSON type of the plain route has to refer to itself.
    expect(references.length).toBeGreaterThan(0);
    for (const [, reference = ''] of references) {
      const target = reference
        .split('/')
        .slice(1)
        .reduce<unknown>((node, key) => new Map(Object.entries(Object(node))).get(key), document);
      expect(target, reference).toBeTypeOf('object');
    }
  });
});
