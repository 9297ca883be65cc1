import { isIPv6 } from 'node:net';
import { expect, test } from 'vitest';
import { containerAddress, nodePrefix } from './address.ts';

const node = `node_${'a'.repeat(32)}`;
const other = `node_${'b'.repeat(32)}`;

// Golden: containers in the field keep these for ever.
test.for([
  ['abcdefghijklmnopqrstuvwxyz', 'fd34:2976:2e07:4d94:44:3214:c742:54b6'],
  ['777777777777777777777777ab', 'fd34:2976:2e07:4d94:ffff:ffff:ffff:ffff'],
])('the address of rid %s is always the same', ([rid = '', address = '']) => {
  expect(containerAddress(node, rid)).toBe(address);
});

test('every address of a node is in its prefix', () => {
  const { prefix, gateway } = nodePrefix(node);
  expect(prefix).toBe('fd34:2976:2e07:4d94::/64');
  expect(gateway).toBe('fd34:2976:2e07:4d94::1');
  expect(isIPv6(gateway)).toBe(true);
  expect(nodePrefix(other).prefix).not.toBe(prefix);
});

test('no rid gets the address of the node or of the network', () => {
  const zero = containerAddress(node, 'a'.repeat(26));
  const one = containerAddress(node, `${'a'.repeat(12)}c${'a'.repeat(13)}`);
  expect(zero).toBe('fd34:2976:2e07:4d94::100');
  expect(one).toBe('fd34:2976:2e07:4d94::101');
});

test('two resources of a node and one resource of two nodes differ', () => {
  const rid = 'abcdefghijklmnopqrstuvwxyz';
  expect(containerAddress(node, `b${rid.slice(1)}`)).not.toBe(containerAddress(node, rid));
  expect(containerAddress(other, rid)).not.toBe(containerAddress(node, rid));
});
