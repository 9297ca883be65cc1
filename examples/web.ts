// A web page with a data volume.
//
//   hypha apply examples/web.ts -i image=oci:/path/to/layout:web -i greeting='Good morning'
//
// The image needs a busybox; scripts/demo-image builds one.
import { container, type Deployment, log, node, volume } from 'hypha';

export const deployment = {
  name: 'web',
  input: {
    image: { type: 'image', default: 'oci:/var/lib/hypha/images/web:web' },
    greeting: { type: 'string', default: 'Hello' },
  },
} satisfies Deployment;

export default async function deploy(input: { image: string; greeting: string }) {
  const data = await volume('data', { size: '64MiB' });

  const web = await container('web', {
    image: input.image,
    command: ['/bin/busybox', 'sh', '/start.sh'],
    env: { WWW: '/www' },
    files: { '/start.sh': start, '/www/index.html': page(input.greeting) },
    mounts: { '/www/data': data },
    memory: '32MiB',
    cpus: 0.25,
    health: { http: { port: 80 }, within: '20s' },
  });

  log('ready', { url: web.url(80) });
  return { url: web.url(80), starts: web.url(80, '/data/starts') };
}

/** Counts its starts in the volume, where the number outlives the container. */
const start = `set -eu
starts=$(($(/bin/busybox cat "$WWW/data/starts" 2>/dev/null || echo 0) + 1))
echo "$starts" >"$WWW/data/starts"
exec /bin/busybox httpd -f -p 80 -h "$WWW"
`;

function page(greeting: string): string {
  const text = greeting.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
  return `<!doctype html>
<title>${text} from ${node.name}</title>
<h1>${text} from ${node.name}</h1>
<p>One signed script made this container and its volume, and a receipt proves it.</p>
<p>Times this container was started: see <a href="/data/starts">data/starts</a>.</p>
`;
}
