import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/** Below what Linux gives to outgoing connections, so that none of those takes one meanwhile. */
const FIRST = 12_000;
const LAST = 32_000;
const TRIES = 200;

/** The first of `count` ports in a row that nobody listens on. Random, so that tests side by side rarely meet. */
export async function findPortBase(count: number): Promise<number> {
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const base = randomInt(FIRST, LAST - count);
    const ports = Array.from({ length: count }, (_, index) => base + index);
    if ((await Promise.all(ports.map(isFree))).every(Boolean)) return base;
  }
  throw new Error(`no ${count} free ports in a row after ${TRIES} tries`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
