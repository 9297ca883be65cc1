// await-line.mjs FILE.json PID: exits 0 once FILE.json holds a whole line; 1 when PID ended or 90 s went by,
// with what it wrote to FILE.err.
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

const [file, pid] = process.argv.slice(2);
const deadline = performance.now() + 90_000;

function isAlive() {
  try {
    process.kill(Number(pid), 0);
    return true;
  } catch {
    return false;
  }
}

while (!readFileSync(file, 'utf8').includes('\n')) {
  if (!isAlive() || performance.now() > deadline) {
    process.stderr.write(`not ready:\n${readFileSync(file.replace(/json$/, 'err'), 'utf8')}`);
    process.exit(1);
  }
  await delay(50);
}
