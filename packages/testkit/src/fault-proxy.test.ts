import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FaultProxy } from './fault-proxy.ts';
import { waitFor } from './wait-for.ts';

/** Answers every line with the line in capitals; ends when the client does. */
const server = createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('data', (chunk) => {
    received.push(chunk.toString());
    socket.write(chunk.toString().toUpperCase());
  });
  socket.on('end', () => socket.end('bye'));
  socket.on('error', () => undefined);
});
let received: string[] = [];
let proxy: FaultProxy;

beforeEach(async () => {
  received = [];
  if (!server.listening) await once(server.listen(0, '127.0.0.1'), 'listening');
  proxy = await FaultProxy.open({ port: (server.address() as AddressInfo).port });
});
afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  server.close();
});

interface Client {
  readonly socket: Socket;
  readonly text: () => string;
  readonly ended: () => boolean;
}

async function connectClient(port = proxy.port): Promise<Client> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  let text = '';
  let ended = false;
  socket.on('data', (chunk) => {
    text += chunk;
  });
  socket.on('end', () => {
    ended = true;
  });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return { socket, text: () => text, ended: () => ended };
}

/** Also when it was reset: `once` would reject. */
function whenClosed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

describe('a fault proxy', () => {
  test('carries both ways when nothing is wrong, also after one side has ended', async () => {
    const { socket, text, ended } = await connectClient();
    socket.write('abc');
    await waitFor(() => text() === 'ABC');
    socket.end();
    await waitFor(ended);
    expect(text()).toBe('ABCbye');
  });

  test('holds everything back during a partition and loses nothing', async () => {
    const { socket, text } = await connectClient();
    proxy.inject({ partitioned: true });
    socket.write('abc');
    const other = await connectClient();
    other.socket.write('def');
    // Whoever goes around the proxy is served several times over in the meantime.
    const direct = await connectClient((server.address() as AddressInfo).port);
    for (const answer of ['X', 'XX', 'XXX']) {
      direct.socket.write('x');
      await waitFor(() => direct.text() === answer);
    }
    direct.socket.destroy();
    expect(received).toEqual(['x', 'x', 'x']);
    proxy.heal();
    await waitFor(() => text() === 'ABC' && other.text() === 'DEF');
  });

  test('delays every chunk', async () => {
    const { socket, text } = await connectClient();
    proxy.inject({ delayMs: 60 });
    const sentAt = performance.now();
    socket.write('abc');
    await waitFor(() => text() === 'ABC');
    expect(performance.now() - sentAt).toBeGreaterThanOrEqual(115);
  });

  test('flips a bit of every answer and of no request', async () => {
    const { socket, text } = await connectClient();
    proxy.inject({ corrupting: true });
    socket.write('abc');
    await waitFor(() => text().length === 3);
    expect(text()).toBe('ACC');
    expect(received).toEqual(['abc']);
  });

  test('loses the answer to a request that was carried out', async () => {
    const { socket, text } = await connectClient();
    proxy.inject({ losingAnswers: true });
    const closed = whenClosed(socket);
    socket.write('abc');
    await closed;
    expect(received).toEqual(['abc']);
    expect(text()).toBe('');
  });

  test('refuses new connections and keeps the old', async () => {
    const { socket, text } = await connectClient();
    proxy.inject({ refusing: true });
    const late = connect(proxy.port, '127.0.0.1');
    late.on('error', () => undefined);
    await whenClosed(late);
    socket.write('abc');
    await waitFor(() => text() === 'ABC');
  });

  test('drops what is open', async () => {
    const { socket } = await connectClient();
    const closed = whenClosed(socket);
    socket.write('abc');
    await waitFor(() => received.length === 1);
    proxy.drop();
    await closed;
    await waitFor(() => proxy.connections === 0);
  });

  test('half closes towards the client and still carries what it sends', async () => {
    const { socket, text, ended } = await connectClient();
    socket.write('abc');
    await waitFor(() => text() === 'ABC');
    proxy.halfClose();
    await waitFor(ended);
    socket.write('def');
    await waitFor(() => received.length === 2);
    expect(received[1]).toBe('def');
  });
});
