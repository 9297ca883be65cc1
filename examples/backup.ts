// A snapshot of what the deployment of web.ts has stored, taken once nobody holds the volume.
//
//   hypha task examples/backup.ts
//
// A task works on what is there: it declares nothing, and nothing is removed because of it.
import { container, type Deployment, log, now, volume, waitFor } from 'hypha';

export const deployment = {
  name: 'web',
  input: { busy: { type: 'string', default: '/www/data/busy' } },
} satisfies Deployment;

export default async function backup(input: { busy: string }) {
  const [data, web] = await Promise.all([volume.get('data'), container.get('web')]);

  // Between two looks nothing runs for this: no process, no script.
  await waitFor(
    'nobody to hold the volume',
    async () => {
      const held = ['/bin/busybox', 'test', '-e', input.busy] as const;
      const { exitCode } = await web.exec(held, { idempotent: true });
      return exitCode !== 0;
    },
    { every: '10s', timeout: '5m' },
  );

  const name = `at-${now()}`;
  await data.snapshot(name);
  log('kept', { snapshot: name });
  return { snapshot: name };
}
