/**
 * A container's place in the network: a namespace of its own, joined to the node by a veth pair.
 *
 *     node: hy-1a2b3c4d  fe80::1/64, fd…::1/128 ── veth ── eth0  fd…:<rid>/128 :container
 *
 * The node has a host route to the address, the container a default route to `fe80::1`. Nothing else of
 * the node changes: no forwarding, no sysctl, no bridge. One attachment per rid, kept while a replace has
 * two instances. Every step may be repeated, and a cut one is completed by the next `ensure`.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HyphaError, type Rid } from '@hypha/protocol';
import { commandFailure, containerAddress, nodePrefix } from '@hypha/sal';
import type { ContainerHost } from './container-host.ts';
import { readKernelFile } from './kernel-file.ts';
import { readBootId } from './process-identity.ts';

const NAMESPACES = '/run/netns';
/** Holds the id of the boot in which the mount over the folder is ours; one for the machine. */
const NAMESPACES_NOTE = '/run/hypha-netns';
/** An `ip netns add` fails when the folder's mount is taken away at just that moment. */
const ADD_ATTEMPTS_MAX = 3;
const NSFS_MAGIC = 0x6e736673;
const MTU = 1400;
const GATEWAY = 'fe80::1';
const ALIAS = /^hypha:([a-z2-7]{26})$/;

export interface Attachment {
  readonly rid: Rid;
  /** Of the namespace and of the node's end of the pair: at most 15 characters. */
  readonly name: string;
  /** What a runtime joins. */
  readonly namespacePath: string;
  readonly address: string;
}

/** Pure. Two nodes of one machine have the same rids, so the name depends on the state folder too. */
export function attachmentOf(host: Pick<ContainerHost, 'group' | 'node'>, rid: Rid): Attachment {
  const hash = createHash('sha256').update(`${host.group}/${rid}`).digest('hex');
  const name = `hy-${hash.slice(0, 8)}`;
  return {
    rid,
    name,
    namespacePath: join(NAMESPACES, name),
    address: containerAddress(host.node, rid),
  };
}

/** Makes what is missing of the links and sets right what differs. Idempotent. Needs the namespace. */
export async function ensureLinks(
  host: ContainerHost,
  attachment: Attachment,
  signal: AbortSignal,
): Promise<void> {
  await ensureLink(host, attachment, signal);
  try {
    await configureInside(host, attachment, signal);
  } catch (error) {
    // The pair may lead into a namespace that lost its name: only a new one leads into ours.
    signal.throwIfAborted();
    if (!(error instanceof HyphaError)) throw error;
    await deleteLink(host, attachment, signal);
    await ensureLink(host, attachment, signal);
    await configureInside(host, attachment, signal);
  }
}

/**
 * A look at it without a command.
 * @param pid a process of the container: it must be in the namespace that has the name
 */
export async function isAttached(attachment: Attachment, pid: number): Promise<boolean> {
  const [named, joined] = await Promise.all([
    stat(attachment.namespacePath).catch(() => undefined),
    stat(`/proc/${pid}/ns/net`).catch(() => undefined),
  ]);
  if (named === undefined || named.ino !== joined?.ino) return false;
  const route = `${expandedHex(attachment.address)} 80 `;
  const routes = readKernelFile('/proc/net/ipv6_route') ?? '';
  return routes
    .split('\n')
    .some((line) => line.startsWith(route) && line.trimEnd().endsWith(` ${attachment.name}`));
}

/** Removes namespace and links. Idempotent. */
export async function removeAttachment(
  host: ContainerHost,
  attachment: Attachment,
  signal: AbortSignal,
): Promise<void> {
  await deleteLink(host, attachment, signal);
  if (await isNamespace(attachment)) {
    await host.effects.run({
      tool: host.tools.ip,
      argv: ['netns', 'del', attachment.name],
      purpose: `delete network namespace ${attachment.name}`,
      signal,
    });
  }
  await removeFile(host, attachment.namespacePath);
  await removeNamespaceMount(host, signal);
}

/** Rids whose links are on the machine and belong to this state folder. */
export async function listAttachedRids(host: ContainerHost): Promise<readonly Rid[]> {
  const links = (await readdir('/sys/class/net')).filter((name) => name.startsWith('hy-'));
  return links.flatMap((link) => {
    const rid = ALIAS.exec(readAlias(link) ?? '')?.[1];
    return rid !== undefined && attachmentOf(host, rid).name === link ? [rid] : [];
  });
}

/** All that a runtime needs to create a container, which has no network yet. Idempotent. */
export async function ensureNamespace(
  host: ContainerHost,
  attachment: Attachment,
  signal: AbortSignal,
): Promise<void> {
  if (await isNamespace(attachment)) return;
  // A cut `ip netns add` leaves the file that the namespace should have been mounted on.
  await removeFile(host, attachment.namespacePath);
  await noteNamespaceMount(host);
  for (let attempt = 1; ; attempt++) {
    try {
      await host.effects.run({
        tool: host.tools.ip,
        argv: ['netns', 'add', attachment.name],
        purpose: `add network namespace ${attachment.name}`,
        signal,
      });
      return;
    } catch (error) {
      if (commandFailure(error) === undefined || attempt === ADD_ATTEMPTS_MAX) throw error;
      await removeFile(host, attachment.namespacePath);
    }
  }
}

async function ensureLink(
  host: ContainerHost,
  attachment: Attachment,
  signal: AbortSignal,
): Promise<void> {
  const { name, rid, address } = attachment;
  const label = `hypha:${rid}`;
  const alias = readAlias(name);
  if (alias !== undefined && alias !== '' && alias !== label) {
    throw new HyphaError('E_SAL', `cannot use network link ${name} for ${rid}: it is ${alias}'s`, {
      hint: 'two containers of this node got the same name: rename one in its script',
    });
  }
  const { gateway } = nodePrefix(host.node);
  const isNew = alias === undefined;
  await host.effects.run({
    tool: host.tools.ip,
    argv: ['-6', '-batch', '-'],
    input: [
      ...(isNew
        ? [`link add dev ${name} mtu ${MTU} type veth peer name eth0 mtu ${MTU} netns ${name}`]
        : []),
      `link set dev ${name} alias ${label}`,
      // Otherwise the kernel adds an address of its own and spends a second on checking it.
      `link set dev ${name} addrgenmode none`,
      `link set dev ${name} up`,
      `addr replace ${GATEWAY}/64 dev ${name} nodad`,
      `addr replace ${gateway}/128 dev ${name} nodad`,
      `route replace ${address}/128 dev ${name} src ${gateway}`,
      '',
    ].join('\n'),
    purpose: `set up network link ${name} of ${rid}`,
    signal,
  });
}

async function configureInside(
  host: ContainerHost,
  { name, rid, address }: Attachment,
  signal: AbortSignal,
): Promise<void> {
  await host.effects.run({
    tool: host.tools.ip,
    argv: ['-6', '-n', name, '-batch', '-'],
    input: [
      'link set dev lo up',
      'link set dev eth0 addrgenmode none',
      'link set dev eth0 up',
      `addr replace ${address}/128 dev eth0 nodad`,
      `route replace default via ${GATEWAY} dev eth0`,
      '',
    ].join('\n'),
    purpose: `set up network namespace ${name} of ${rid}`,
    signal,
  });
}

async function deleteLink(
  host: ContainerHost,
  { name, rid }: Attachment,
  signal: AbortSignal,
): Promise<void> {
  if (readAlias(name) === undefined) return;
  await host.effects.run({
    tool: host.tools.ip,
    argv: ['link', 'del', 'dev', name],
    purpose: `delete network link ${name} of ${rid}`,
    signal,
  });
}

/** Undefined when there is no such link, empty when it has no alias. */
function readAlias(link: string): string | undefined {
  return readKernelFile(`/sys/class/net/${link}/ifalias`)?.trimEnd();
}

async function removeFile(host: ContainerHost, path: string): Promise<void> {
  if (await exists(path)) await host.effects.change(() => rm(path, { force: true }));
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function isNamespace({ namespacePath }: Attachment): Promise<boolean> {
  const info = await statfs(namespacePath).catch(() => undefined);
  return info?.type === NSFS_MAGIC;
}

function isMountPoint(path: string): boolean {
  const mounts = readKernelFile('/proc/self/mountinfo') ?? '';
  return mounts.split('\n').some((line) => line.split(' ')[4] === path);
}

/**
 * `ip netns` mounts its folder over itself the first time it is used, and leaves that. We take it away
 * when it is empty, but only where it was not there before the first of ours. The note is for this boot,
 * and never taken back: two processes that add and remove at a time could not agree on it.
 */
async function noteNamespaceMount(host: ContainerHost): Promise<void> {
  if (isMountPoint(NAMESPACES)) return;
  const bootId = readBootId();
  await host.effects.change(() => writeFile(NAMESPACES_NOTE, bootId));
}

async function removeNamespaceMount(host: ContainerHost, signal: AbortSignal): Promise<void> {
  const note = await readFile(NAMESPACES_NOTE, 'utf8').catch(() => '');
  const names = await readdir(NAMESPACES).catch(() => []);
  if (names.length > 0 || note !== readBootId()) return;
  if (!isMountPoint(NAMESPACES)) return;
  await host.effects.run({
    tool: host.tools.umount,
    argv: ['--', NAMESPACES],
    purpose: `unmount ${NAMESPACES}`,
    // Somebody may have begun to use it meanwhile.
    exitCodes: 'any',
    signal,
  });
}

/** 32 hex digits, as `/proc/net/ipv6_route` writes an address. */
function expandedHex(address: string): string {
  const [head = '', tail] = address.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const [first, last] = [groups(head), groups(tail ?? '')];
  const zeros = Array.from({ length: 8 - first.length - last.length }, () => '0');
  return [...first, ...zeros, ...last].map((group) => group.padStart(4, '0')).join('');
}
