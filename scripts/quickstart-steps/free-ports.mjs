// free-ports.mjs N SEED: prints the first of N neighbouring loopback ports that nobody listens on. Callers
// with different seeds (pids) begin to look at different places, so that two at once do not take the same.
import { createServer } from 'node:net';

const FIRST = 7401;
// Below the ports that Linux gives to outgoing connections.
const LAST = 32_000;

const [wanted = 1, seed = 0] = process.argv.slice(2).map(Number);
const places = Math.floor((LAST - FIRST) / wanted);

function isFree(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

for (let place = 0; place < places; place++) {
  const base = FIRST + ((seed + place) % places) * wanted;
  const free = await Promise.all(
    Array.from({ length: wanted }, (_, index) => isFree(base + index)),
  );
  if (free.every(Boolean)) {
    process.stdout.write(`${base}\n`);
    process.exit(0);
  }
}
process.stderr.write('no free ports\n');
process.exit(1);
