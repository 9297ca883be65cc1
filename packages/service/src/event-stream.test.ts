import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { HyphaError } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { type CallerKey, READERS } from './caller.ts';
import {
  formatEvent,
  type ServerEvent,
  STREAM_TIMING,
  type StreamTiming,
  writeEvents,
} from './event-stream.ts';
import { startTestServer } from './testing/test-server.ts';

async function* ticks(after: number, count: number): AsyncGenerator<ServerEvent> {
  for (let n = after + 1; n <= after + count; n++) {
    yield { id: String(n), event: 'tick', data: `line ${n}\r\nmore` };
  }
}

/** A source that has nothing to say and does not end by itself. */
async function* silence(): AsyncGenerator<ServerEvent> {
  await new Promise<never>(() => undefined);
}

/** A raw server whose every request is answered with `events`. */
async function serveEvents(
  events: () => AsyncIterable<ServerEvent>,
  timing: Partial<StreamTiming>,
): Promise<AsyncDisposable & { port: number; outcome: Promise<void> }> {
  const outcome = Promise.withResolvers<void>();
  const server: Server = createServer((_request, response) => {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const all = { ...STREAM_TIMING, ...timing };
    writeEvents(response, events(), gone.signal, all).then(outcome.resolve, outcome.reject);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    outcome: outcome.promise,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

describe('a stream', () => {
  test('yields what its source yields, from where the client was', async () => {
    await using t = await startTestServer((server) =>
      server.stream({
        path: '/v1/ticks',
        auth: 'public',
        summary: 'Ticks.',
        open: async ({ lastEventId }) => ticks(Number(lastEventId ?? 0), 2),
      }),
    );
    const { signal } = new AbortController();
    const read = async (lastEventId?: string) => {
      const request = {
        path: '/v1/ticks',
        signal,
        ...(lastEventId === undefined ? {} : { lastEventId }),
      };
      return await Array.fromAsync(t.clientOf().stream(request));
    };
    expect(await read()).toEqual([
      { id: '1', event: 'tick', data: 'line 1\nmore' },
      { id: '2', event: 'tick', data: 'line 2\nmore' },
    ]);
    expect((await read('7')).map(({ id }) => id)).toEqual(['8', '9']);
  });

  test('that cannot be opened is a problem document', async () => {
    await using t = await startTestServer((server) =>
      server.stream({
        path: '/v1/none',
        auth: 'public',
        summary: 'Nothing.',
        open: async () => {
          throw new HyphaError('E_NOT_FOUND', 'no such run');
        },
      }),
    );
    const { signal } = new AbortController();
    await expect(
      Array.fromAsync(t.clientOf().stream({ path: '/v1/none', signal })),
    ).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
    const tooLong = { path: '/v1/none', signal, lastEventId: 'x'.repeat(300) };
    await expect(Array.fromAsync(t.clientOf().stream(tooLong))).rejects.toMatchObject({
      code: 'E_REQUEST',
    });
  });

  test.for([
    ['is no longer known', () => undefined],
    ['is for other realms now', (key) => ({ ...key, realms: ['b'] })],
  ] as const satisfies readonly (readonly [string, (key: CallerKey) => CallerKey | undefined])[])(
    'ends when the key that opened it %s',
    async ([, change]) => {
      await using t = await startTestServer(
        (server) =>
          server.stream({
            path: '/v1/wait',
            auth: { roles: READERS },
            summary: 'Waits.',
            open: async () => silence(),
          }),
        { streamCheckMs: 10 },
      );
      const { signal } = new AbortController();
      const ended = Array.fromAsync(t.clientOf(t.viewer).stream({ path: '/v1/wait', signal })).then(
        () => 'ended',
      );
      await expect.poll(() => t.lookups()).toBeGreaterThan(2);
      const key = t.keys.get(t.viewer.keyid);
      if (key === undefined) throw new Error('the viewer has no key');
      const changed = change(key);
      if (changed === undefined) t.keys.delete(t.viewer.keyid);
      else t.keys.set(t.viewer.keyid, changed);
      expect(await ended).toBe('ended');
    },
  );

  test('tells its source when the client has gone, and ends when the service stops', async () => {
    const signals: AbortSignal[] = [];
    await using t = await startTestServer((server) =>
      server.stream({
        path: '/v1/wait',
        auth: 'public',
        summary: 'Waits.',
        open: async ({ signal }) => {
          signals.push(signal);
          return (async function* () {
            yield { data: 'first' };
            await once(signal, 'abort');
          })();
        },
      }),
    );
    const { signal } = new AbortController();
    for await (const _event of t.clientOf().stream({ path: '/v1/wait', signal })) break;
    await expect.poll(() => signals[0]?.aborted).toBe(true);
    const events = t.clientOf().stream({ path: '/v1/wait', signal });
    await events.next();
    const rest = events.next();
    await t.server.close();
    expect(await rest).toEqual({ done: true, value: undefined });
    expect(signals[1]?.aborted).toBe(true);
  });

  test('is cut off when its source fails, so that the client comes back', async () => {
    await using t = await startTestServer((server) =>
      server.stream({
        path: '/v1/fails',
        auth: 'public',
        summary: 'Fails.',
        open: async () =>
          (async function* () {
            yield { id: '1', data: 'first' };
            throw new Error('broken');
          })(),
      }),
    );
    const { signal } = new AbortController();
    const read = async () =>
      await Array.fromAsync(t.clientOf().stream({ path: '/v1/fails', signal }));
    await expect(read()).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
  });

  test('takes no more from its source than a client reads, and cuts one off that stalls', async () => {
    let taken = 0;
    const endless = async function* () {
      for (;;) {
        taken++;
        yield { data: 'x'.repeat(64 * 1024) };
      }
    };
    await using peer = await serveEvents(endless, { stalledMsMax: 300 });
    const socket = connect(peer.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await peer.outcome;
    // What kernel and socket buffers hold, not what the source could give in that time.
    expect(taken).toBeLessThan(500);
    socket.destroy();
  });

  test('shows a sign of life while nothing happens', async () => {
    const silence = async function* (): AsyncGenerator<ServerEvent> {
      await new Promise(() => undefined);
    };
    await using peer = await serveEvents(silence, { heartbeatMs: 10 });
    const socket = connect(peer.port, '127.0.0.1');
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    let received = '';
    for await (const chunk of socket) {
      received += String(chunk);
      if (received.split(':\n\n').length > 4) break;
    }
    expect(received).toContain('text/event-stream');
    await peer.outcome;
  });
});

test('an event whose id would break its line is refused', () => {
  expect(() => formatEvent({ id: '1\nevent: fake', data: '' })).toThrow(HyphaError);
});
