// A copy of the live data to try something on, made at once and without copying it.
//
//   hypha apply examples/staging.ts -i image=oci:/path/to/layout:web
//
// Apply it again with another `try`: what `live` holds never changes, what `staging` holds does.
import { container, type Deployment, HyphaError, log, volume } from 'hypha';

export const deployment = {
  name: 'staging',
  input: {
    image: { type: 'image', default: 'oci:/var/lib/hypha/images/web:web' },
    try: { type: 'string', default: 'echo tried >>/www/notes' },
  },
} satisfies Deployment;

export default async function deploy(input: { image: string; try: string }) {
  const live = await volume('live', { size: '64MiB' });
  await live.snapshot('before-staging');
  const staging = await live.clone('staging');

  const web = await container('web', {
    image: input.image,
    command: ['/bin/busybox', 'httpd', '-f', '-p', '80', '-h', '/www'],
    mounts: { '/www': staging },
    memory: '32MiB',
    cpus: 0.25,
    health: { tcp: { port: 80 }, within: '20s' },
  });

  const { exitCode, stderr } = await web.exec(['/bin/busybox', 'sh', '-c', input.try], {
    timeout: '30s',
    idempotent: true,
  });
  if (exitCode !== 0) throw new HyphaError('E_SCRIPT', `the trial failed: ${stderr}`);
  log('tried', { on: staging });
  return { url: web.url(80, '/notes') };
}
