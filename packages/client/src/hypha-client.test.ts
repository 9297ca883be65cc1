import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { HyphaError, toProblem } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { followStream } from './follow-stream.ts';
import { apiPath, HyphaClient } from './hypha-client.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

interface Peer extends AsyncDisposable {
  readonly url: string;
  readonly client: HyphaClient;
}

async function serve(answer: Answer, options: { timeoutMs?: number } = {}): Promise<Peer> {
  const server = createServer((request, response) => {
    void answer(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = new HyphaClient({ baseUrl: url, ...options });
  return {
    url,
    client,
    [Symbol.asyncDispose]: async () => {
      await client.close();
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

const get = (path: string) =>
  ({ method: 'GET', path, answer: z.object({ ok: z.boolean() }) }) as const;

describe('request', () => {
  test('sends JSON and query, and parses the answer', async () => {
    await using peer = await serve(async (request, response) => {
      const chunks = await request.toArray();
      response.end(
        JSON.stringify({
          url: request.url,
          type: request.headers['content-type'],
          body: Buffer.concat(chunks).toString(),
        }),
      );
    });
    const answer = await peer.client.request({
      method: 'POST',
      path: apiPath`/v1/nodes/${'a/b ?'}`,
      query: { limit: 5, label: ['a=1', 'b=2'], none: undefined },
      body: { x: 1 },
      answer: z.object({ url: z.string(), type: z.string(), body: z.string() }),
    });
    expect(answer).toEqual({
      url: '/v1/nodes/a%2Fb%20%3F?limit=5&label=a%3D1&label=b%3D2',
      type: 'application/json',
      body: '{"x":1}',
    });
  });

  test('throws the error a problem document tells of', async () => {
    const error = new HyphaError('E_CONFLICT', 'cannot do it', {
      where: { path: 'a.b' },
      hint: 'do that',
      details: { n: 1 },
    });
    await using peer = await serve((_request, response) => {
      response.writeHead(409, { 'content-type': 'application/problem+json' });
      response.end(JSON.stringify(toProblem(error)));
    });
    await expect(peer.client.request(get('/'))).rejects.toMatchObject({
      code: 'E_CONFLICT',
      message: 'cannot do it',
      where: { path: 'a.b' },
      hint: 'do that',
      details: { n: 1 },
      retryable: false,
    });
  });

  test('names the address that refuses the connection', async () => {
    const peer = await serve(() => undefined);
    await peer[Symbol.asyncDispose]();
    const client = new HyphaClient({ baseUrl: peer.url });
    await expect(client.request(get('/v1/x'))).rejects.toMatchObject({
      code: 'E_UNAVAILABLE',
      retryable: true,
      message: `cannot reach GET ${peer.url}/v1/x (ECONNREFUSED)`,
    });
    await client.close();
  });

  test('gives up on a server that does not answer, or stops in the middle', async () => {
    await using peer = await serve(
      (request, response) => {
        if (request.url === '/half') response.write('{"ok":');
      },
      { timeoutMs: 100 },
    );
    for (const path of ['/never', '/half']) {
      await expect(peer.client.request(get(path))).rejects.toMatchObject({
        code: 'E_UNAVAILABLE',
        retryable: true,
        message: `no answer to GET ${peer.url}${path} within 100 ms`,
      });
    }
  });

  test('rejects with the reason of the caller who aborts', async () => {
    await using peer = await serve(() => undefined);
    const reason = new Error('enough');
    const stop = new AbortController();
    const request = peer.client.request({ ...get('/'), signal: stop.signal });
    stop.abort(reason);
    await expect(request).rejects.toBe(reason);
    await expect(peer.client.request({ ...get('/'), signal: stop.signal })).rejects.toBe(reason);
  });

  test.for([
    ['a gateway page', 502, '<html>', 'E_UNAVAILABLE'],
    ['a page of something else', 404, '<html>', 'E_INTERNAL'],
    ['half a connection', 200, '{"ok"', 'E_UNAVAILABLE'],
    ['another shape', 200, '{"ok":"yes"}', 'E_INTERNAL'],
  ] as const)('tells %s from Hypha', async ([, status, body, code]) => {
    await using peer = await serve((_request, response) => {
      response.writeHead(status);
      response.end(body);
    });
    await expect(peer.client.request(get('/'))).rejects.toMatchObject({
      code,
      message: expect.stringContaining(`GET ${peer.url}/`),
    });
  });

  test('does not read an answer without end', async () => {
    await using peer = await serve((_request, response) => {
      const chunk = Buffer.alloc(1024 * 1024, 0x20);
      const more = () => {
        while (!response.destroyed && response.write(chunk));
        response.once('drain', more);
      };
      more();
    });
    await expect(peer.client.request(get('/'))).rejects.toMatchObject({ code: 'E_SIZE' });
  });
});

test.for(['', 'localhost:7401', 'ftp://host', 'http://host/path', 'http://host/?x'])(
  'takes no address like %j',
  (baseUrl) => {
    expect(() => new HyphaClient({ baseUrl })).toThrow(
      expect.objectContaining({ code: 'E_ARGUMENT' }),
    );
  },
);

/** Sends `count` events after `Last-Event-ID` and ends. */
function ticks(request: IncomingMessage, response: ServerResponse, count: number): void {
  const after = Number(request.headers['last-event-id'] ?? 0);
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (let id = after + 1; id <= after + count; id++) response.write(`id: ${id}\ndata: ${id}\n\n`);
}

describe('stream', () => {
  test('yields events until the server ends', async () => {
    await using peer = await serve((request, response) => {
      ticks(request, response, 2);
      response.end();
    });
    const signal = new AbortController().signal;
    const ids = [];
    for await (const { id } of peer.client.stream({ path: '/', signal, lastEventId: '5' }))
      ids.push(id);
    expect(ids).toEqual(['6', '7']);
  });

  test('ends without an error when the signal aborts', async () => {
    await using peer = await serve((request, response) => ticks(request, response, 1));
    const stop = new AbortController();
    const ids = [];
    for await (const { id } of peer.client.stream({ path: '/', signal: stop.signal })) {
      ids.push(id);
      stop.abort();
    }
    expect(ids).toEqual(['1']);
  });

  test('closes its connection when the reader leaves', async () => {
    const closed = Promise.withResolvers<void>();
    await using peer = await serve((request, response) => {
      response.once('close', closed.resolve);
      ticks(request, response, 1);
    });
    const signal = new AbortController().signal;
    for await (const _event of peer.client.stream({ path: '/', signal })) break;
    await closed.promise;
  });

  test('throws what a refusal says, and that a connection was lost', async () => {
    await using peer = await serve((request, response) => {
      if (request.url === '/lost') {
        ticks(request, response, 1);
        setImmediate(() => response.destroy());
      } else {
        const error = new HyphaError('E_NOT_FOUND', 'no run');
        response.writeHead(404).end(JSON.stringify(toProblem(error)));
      }
    });
    const { signal } = new AbortController();
    const drain = async (path: string) => {
      for await (const _event of peer.client.stream({ path, signal }));
    };
    await expect(drain('/refused')).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
    await expect(drain('/lost')).rejects.toMatchObject({ code: 'E_UNAVAILABLE', retryable: true });
  });
});

describe('followStream', () => {
  const clock = { nowMs: () => 0, nonce: () => '', jitterMs: () => 0 };

  test('comes back after every loss and repeats nothing', async () => {
    let connections = 0;
    await using peer = await serve((request, response) => {
      connections++;
      if (connections === 2) {
        response.writeHead(503).end('away');
        return;
      }
      ticks(request, response, 2);
      setImmediate(() => (connections === 1 ? response.destroy() : response.end()));
    });
    const stop = new AbortController();
    const ids: string[] = [];
    const lost: (string | undefined)[] = [];
    const onLost = (error: HyphaError | undefined) => lost.push(error?.code);
    const options = { path: '/', signal: stop.signal, onLost, clock };
    for await (const { id } of followStream(peer.client, options)) {
      ids.push(id);
      if (ids.length === 6) stop.abort();
    }
    expect(ids).toEqual(['1', '2', '3', '4', '5', '6']);
    expect(lost).toEqual(['E_UNAVAILABLE', 'E_UNAVAILABLE', undefined]);
  });

  test('throws a refusal that stays one, unless told to persist', async () => {
    let asked = 0;
    await using peer = await serve((_request, response) => {
      asked++;
      const error = new HyphaError('E_UNAUTHENTICATED', 'who?');
      response.writeHead(401).end(JSON.stringify(toProblem(error)));
    });
    const stop = new AbortController();
    const drain = async (persist: boolean) => {
      const options = {
        path: '/',
        signal: stop.signal,
        clock,
        ...(persist ? { persist: () => true } : {}),
        onLost: () => {
          if (asked > 2) stop.abort();
        },
      };
      for await (const _event of followStream(peer.client, options));
    };
    await expect(drain(false)).rejects.toMatchObject({ code: 'E_UNAUTHENTICATED' });
    expect(asked).toBe(1);
    await drain(true);
    expect(asked).toBe(3);
  });
});
