// free-ports.mjs N: prints the first of N neighbouring loopback ports that nobody listens on.
import { createServer } from 'node:net';

const wanted = Number(process.argv[2]);

function isFree(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

for (let base = 7401; base < 60_000; base += wanted) {
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
