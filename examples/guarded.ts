// A page behind a password that nobody but the node and the container ever sees.
//
//   echo '/:me:open-sesame' >users.conf
//   hypha apply examples/guarded.ts -i image=oci:/path/to/layout:web --secret users=file:users.conf
//
// Apply it again with `--secret users=keep` to change the page and not the password.
import { container, type Deployment, log, secret } from 'hypha';

export const deployment = {
  name: 'guarded',
  input: {
    image: { type: 'image', default: 'oci:/var/lib/hypha/images/web:web' },
    page: { type: 'string', default: '<h1>Only for you</h1>' },
  },
  secrets: ['users'],
} satisfies Deployment;

export default async function deploy(input: { image: string; page: string }) {
  const web = await container('web', {
    image: input.image,
    command: ['/bin/busybox', 'httpd', '-f', '-p', '80', '-h', '/www', '-c', '/run/users.conf'],
    files: {
      '/www/index.html': input.page,
      // In the container a file on a tmpfs; in this script, in the journal and everywhere else a name.
      '/run/users.conf': secret('users'),
    },
    memory: '32MiB',
    cpus: 0.25,
    health: { tcp: { port: 80 }, within: '20s' },
  });

  log('ready', { url: web.url(80) });
  return { url: web.url(80) };
}
