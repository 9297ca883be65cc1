/** The deployment that dies at every point: every verb of every SAL, alone and at once. */

/** Steps that the script below takes. */
export const STEPS = 20;

export const VOLUMES = ['data', 'copy', 'scratch'] as const;
export const CONTAINERS = ['web', 'side'] as const;

/** Where the execs that may run only once leave a line each, in the volume `data`. */
export const ONCE_FILE = 'once';

export const SOURCE = `import { container, log, sleep, volume } from 'hypha';

const shell = (command) => ['/bin/sh', '-c', command];

export default async ({ image }) => {
  const data = await volume('data', { size: '16MiB' });
  const spec = { image, mounts: { '/data': data }, files: { '/etc/motto': 'hello' }, memory: '16MiB' };
  const web = await container('web', { ...spec, env: { GREETING: 'one' } });
  await web.exec(shell('echo first >> /data/${ONCE_FILE}'));
  await web.exec(shell('cat /etc/motto > /data/motto'), { idempotent: true });
  await data.snapshot('before');
  await volume('data', { size: '24MiB' });
  const [copy, scratch] = await Promise.all([
    data.clone('copy'),
    volume('scratch', { size: '16MiB' }),
    sleep('5ms'),
  ]);
  await container('web', { ...spec, env: { GREETING: 'one' }, memory: '24MiB' });
  await Promise.all([
    container('side', { image, mounts: { '/copy': copy }, memory: '16MiB' }),
    web.exec(shell('echo $GREETING > /data/greeting'), { idempotent: true }),
    volume('scratch', { size: '20MiB' }),
  ]);
  const next = await container('web', { ...spec, env: { GREETING: 'two' }, memory: '24MiB' });
  const { exitCode } = await next.exec(shell('echo $GREETING > /data/greeting'), { idempotent: true });
  const [seen, held] = await Promise.all([container.get('web'), volume.get('data')]);
  await seen.exec(shell('echo second >> /data/${ONCE_FILE}'));
  log('made', { luck: Math.random() < 1 });
  await Promise.all([copy.snapshot('after'), scratch.snapshot('empty')]);
  return { size: held.sizeBytes, names: [seen.name, copy.name], exitCode };
};
`;
