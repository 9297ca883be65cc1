/**
 * Addresses are derived, never allocated: the same resource on the same node has the same address before
 * it exists, after a reboot and in simulation. A node's /64 is a unique local prefix (RFC 4193): `fd`,
 * then 40 bits of global id and 16 bits of subnet from SHA-256 of the node id. The host part is the first
 * 64 bits of the rid. Host parts below 256 belong to the node; a rid that lands there has bit 8 set.
 */
import { createHash } from 'node:crypto';
import type { NodeId, Rid } from '@hypha/protocol';

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';
/** 13 characters of 5 bits: the first 64 bits and one more. */
const HOST_CHARACTERS = 13;
const NODE_HOSTS = 256n;
const GATEWAY_HOST = 1n;

export interface NodePrefix {
  /** `fd…::/64`. */
  readonly prefix: string;
  /** The node's own address in it, host part 1: what containers route through. */
  readonly gateway: string;
}

export function nodePrefix(node: NodeId): NodePrefix {
  const network = networkOf(node);
  return {
    prefix: `${formatIpv6(network)}/64`,
    gateway: formatIpv6(network | GATEWAY_HOST),
  };
}

/** The container's IPv6 address in canonical text (RFC 5952). */
export function containerAddress(node: NodeId, rid: Rid): string {
  return formatIpv6(networkOf(node) | hostOf(rid));
}

function networkOf(node: NodeId): bigint {
  const digest = createHash('sha256').update(node, 'utf8').digest();
  const ids = digest.subarray(0, 7).reduce((bits, byte) => (bits << 8n) | BigInt(byte), 0n);
  return ((0xfdn << 56n) | ids) << 64n;
}

function hostOf(rid: Rid): bigint {
  let bits = 0n;
  for (const character of rid.slice(0, HOST_CHARACTERS)) {
    bits = (bits << 5n) | BigInt(BASE32.indexOf(character));
  }
  const host = bits >> 1n;
  return host < NODE_HOSTS ? host | NODE_HOSTS : host;
}

/** RFC 5952: lower case, no leading zeros, the first longest run of two or more zero groups shortened. */
function formatIpv6(address: bigint): string {
  const groups = Array.from({ length: 8 }, (_, index) =>
    ((address >> BigInt(16 * (7 - index))) & 0xffffn).toString(16),
  );
  let best = { start: 0, length: 1 };
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === '0') length++;
    if (length > best.length) best = { start, length };
  }
  if (best.length < 2) return groups.join(':');
  const head = groups.slice(0, best.start).join(':');
  return `${head}::${groups.slice(best.start + best.length).join(':')}`;
}
