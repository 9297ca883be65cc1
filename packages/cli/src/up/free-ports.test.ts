import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { expect, test } from 'vitest';
import { checkPortsFree } from './free-ports.ts';

test('a port somebody listens on is named, one that nobody does is left free', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as AddressInfo;
  try {
    await expect(checkPortsFree([0, port])).rejects.toMatchObject({
      code: 'E_UNAVAILABLE',
      message: `cannot listen on 127.0.0.1:${port}: address already in use`,
    });
  } finally {
    taken.close();
    await once(taken, 'close');
  }
  await checkPortsFree([port]);
  await checkPortsFree([port]);
});
