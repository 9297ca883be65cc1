/** A service process that does what its argument says. */
import { OpenFileError } from '@hypha/protocol/node';
import { ConfigError } from '../configuration.ts';
import { runService } from '../run-service.ts';

const [deed] = process.argv.slice(2);

await runService(async ({ signal, ready }) => {
  if (deed === 'bad-config') throw new ConfigError(['--port: x: not a number', '--state: : empty']);
  if (deed === 'open-key') throw new OpenFileError('/state/key.pem', 0o100644);
  if (deed === 'fail') throw new Error('cannot start');
  ready({ url: 'http://127.0.0.1:1' });
  if (deed === 'throw-later') {
    setImmediate(() => {
      throw new Error('nobody caught me');
    });
  }
  if (deed === 'reject-later') void Promise.reject(new Error('nobody caught me'));
  const stopped = Promise.withResolvers<void>();
  // Something that keeps the process alive, as a server would.
  const alive = setInterval(() => undefined, 1000);
  signal.addEventListener('abort', () => {
    if (process.connected) process.send?.('stopping');
    if (deed !== 'hang') stopped.resolve();
  });
  process.on('SIGTERM', () => {
    if (signal.aborted && process.connected) process.send?.('still stopping');
  });
  await stopped.promise;
  clearInterval(alive);
}, 'small-service');
