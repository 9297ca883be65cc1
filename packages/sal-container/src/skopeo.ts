/** Fetching an image from a registry with skopeo, and telling its failures apart. */
import { access } from 'node:fs/promises';
import { HyphaError } from '@hypha/protocol';
import { commandFailure, type ImageReference } from '@hypha/sal';
import type { ContainerHost } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { imageArchitecture } from './oci-layout.ts';

type RegistryReference = Extract<ImageReference, { source: 'registry' }>;

const MACHINE_POLICY = '/etc/containers/policy.json';

/** What a registry answers about an image that it will not serve however often it is asked. */
const TERMINAL =
  /manifest unknown|name unknown|not found|unauthorized|authentication required|denied|invalid reference|unsupported|no image found in (?:manifest list|image index)|server gave HTTP response|does not match|digest mismatch/i;
const NETWORK =
  /connection re(?:fused|set)|no such host|i\/o timeout|timed? ?out|deadline exceeded|TLS handshake|unexpected EOF|\bEOF\b|network is unreachable|no route to host|temporary failure|toomanyrequests|too many requests|server misbehaving|(?:status|code)[: ]+5\d\d|5\d\d (?:Internal|Bad|Service|Gateway)|internal server error|service unavailable/i;

/** Copies the image a digest names to `layout:tag`. skopeo checks every byte against the digest. */
export async function skopeoCopy(
  host: ContainerHost,
  reference: RegistryReference,
  options: { layout: string; tag: string; signal: AbortSignal },
): Promise<void> {
  const { repository, digest } = reference;
  const isPlain = host.plainRegistries.includes(registryOf(repository));
  const hasPolicy = await access(MACHINE_POLICY).then(
    () => true,
    () => false,
  );
  const source = `${repository}@${digest}`;
  try {
    await host.effects.run({
      tool: host.tools.skopeo,
      argv: [
        // The digest in the signed script is the policy where the machine has none.
        ...(hasPolicy ? [] : ['--insecure-policy']),
        '--override-os=linux',
        `--override-arch=${imageArchitecture()}`,
        'copy',
        '--quiet',
        ...(isPlain ? ['--src-tls-verify=false'] : []),
        '--',
        `docker://${source}`,
        `oci:${options.layout}:${options.tag}`,
      ],
      purpose: `pull image ${source}`,
      timeoutMs: CONTAINER_LIMITS.pullMsMax,
      signal: options.signal,
    });
  } catch (cause) {
    throw pullFailure(cause, source);
  }
}

/** `registry.example:5000` of a repository. */
function registryOf(repository: string): string {
  return repository.slice(0, repository.indexOf('/'));
}

/** `E_IMAGE`, retryable when only the network stood in the way; `E_STORAGE` when the pool is full. */
export function pullFailure(cause: unknown, image: string): unknown {
  const failure = commandFailure(cause);
  if (failure === undefined) return cause;
  const { stderr, timedOut } = failure;
  if (/no space left on device|disk quota exceeded/i.test(stderr)) {
    return new HyphaError('E_STORAGE', `cannot store image ${image}`, { cause });
  }
  const retryable = timedOut || (NETWORK.test(stderr) && !TERMINAL.test(stderr));
  return new HyphaError('E_IMAGE', `cannot get image ${image}`, {
    cause,
    retryable,
    where: { path: 'image' },
    hint: retryable
      ? 'the registry did not answer as it should: check the network of the node'
      : 'check repository and digest: skopeo inspect docker://REPOSITORY@DIGEST',
    details: { stderr: stderr.slice(-1000) },
  });
}
