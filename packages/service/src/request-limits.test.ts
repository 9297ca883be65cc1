import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { generateKey } from '@hypha/protocol/node';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { Echo, startTestServer, type TestServer } from './testing/test-server.ts';

const read = { method: 'GET', path: '/v1/read', answer: Echo } as const;

test('an address that asks too much is told when to come again, signed or not', async () => {
  await using t = await startTestServer(undefined, { listener: { ratePerAddress: 1 } });
  const client = t.clientOf(t.viewer);
  await client.request(read);
  await client.request(read);
  await expect(client.request(read)).rejects.toMatchObject({
    code: 'E_RATE',
    retryable: true,
    message: expect.stringContaining('address 127.0.0.1'),
  });
  for (const path of ['/v1/public', '/v1/nothing', '/metrics']) {
    const answer = await fetch(`${t.url}${path}`, { method: 'POST', body: 'x' });
    expect(answer.status, path).toBe(429);
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
  }
});

test('a key that asks too much is refused alone, wherever it asks from', async () => {
  await using t = await startTestServer(undefined, { listener: { ratePerKey: 1 } });
  const [one, two] = [t.clientOf(t.viewer), t.clientOf(t.viewer)];
  await one.request(read);
  await two.request(read);
  await expect(one.request(read)).rejects.toMatchObject({
    code: 'E_RATE',
    message: expect.stringContaining(t.viewer.keyid),
  });
  expect(await t.clientOf(t.signer).request(read)).toMatchObject({ keyid: t.signer.keyid });
});

test('a signature that does not hold costs its claimed key nothing', async () => {
  await using t = await startTestServer(undefined, { listener: { ratePerKey: 1 } });
  const forger = { ...generateKey().signer, keyid: t.viewer.keyid };
  for (let n = 0; n < 5; n++) {
    await expect(t.clientOf(forger).request(read)).rejects.toMatchObject({
      code: 'E_UNAUTHENTICATED',
    });
  }
  expect(await t.clientOf(t.viewer).request(read)).toMatchObject({ keyid: t.viewer.keyid });
});

test('more requests at once than may be are told to come again', async () => {
  const answered = Promise.withResolvers<void>();
  await using t = await startTestServer(
    (server) =>
      server.route({
        method: 'GET',
        path: '/v1/slow',
        auth: 'public',
        summary: 'Waits.',
        answer: z.object({}),
        handle: async () => {
          waiting++;
          await answered.promise;
          return {};
        },
      }),
    { listener: { requestsAtOnce: 2 } },
  );
  let waiting = 0;
  const slow = [fetch(`${t.url}/v1/slow`), fetch(`${t.url}/v1/slow`)];
  await expect.poll(() => waiting).toBe(2);
  const refused = await fetch(`${t.url}/v1/public`);
  expect(refused.status).toBe(503);
  expect(refused.headers.get('retry-after')).toBe('1');
  answered.resolve();
  expect((await Promise.all(slow)).map(({ status }) => status)).toEqual([200, 200]);
  expect((await fetch(`${t.url}/v1/public`)).status).toBe(200);
});

test('an address gets so many connections and no more, until one closes', async () => {
  await using t = await startTestServer(undefined, { listener: { connectionsPerAddress: 2 } });
  const [first, second] = [await open(t), await open(t)];
  const third = await open(t);
  await once(third, 'close');
  first.destroy();
  // The server sees the end a moment later.
  await expect.poll(async () => (await ask(t)) || 'refused').toMatch(/^HTTP\/1\.1 200/);
  second.destroy();
});

async function open(t: TestServer): Promise<Socket> {
  const socket = connect(Number(new URL(t.url).port), '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** Empty when the server hangs up. */
async function ask(t: TestServer): Promise<string> {
  const socket = await open(t);
  let answer = '';
  socket.on('data', (data: Buffer) => {
    answer += data.toString();
  });
  socket.write('GET /v1/public HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n');
  await once(socket, 'close');
  return answer;
}
