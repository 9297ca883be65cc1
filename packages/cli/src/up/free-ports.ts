import { once } from 'node:events';
import { createServer } from 'node:net';
import { getSystemErrorMessage } from 'node:util';
import { HyphaError } from '@hypha/protocol';

/**
 * Finds out before anything is started whether the services can listen on loopback. Somebody else may
 * still be faster: then the service's own log says so.
 *
 * Throws `E_UNAVAILABLE` naming the first port that cannot be had.
 */
export async function checkPortsFree(ports: readonly number[]): Promise<void> {
  for (const port of ports) {
    const server = createServer();
    try {
      server.listen({ host: '127.0.0.1', port, exclusive: true });
      await once(server, 'listening');
    } catch (cause) {
      const { errno } = cause as NodeJS.ErrnoException;
      const reason = errno === undefined ? 'not allowed' : getSystemErrorMessage(errno);
      throw new HyphaError('E_UNAVAILABLE', `cannot listen on 127.0.0.1:${port}: ${reason}`, {
        cause,
        where: { path: `127.0.0.1:${port}` },
        hint: 'stop what listens there, or choose another port',
      });
    }
    server.close();
    await once(server, 'close');
  }
}
