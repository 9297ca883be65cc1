/**
 * The Merkle tree of RFC 9162 §2.1: leaf `SHA-256(0x00 ‖ entry)`, node `SHA-256(0x01 ‖ left ‖ right)`.
 * Sizes and indexes are safe integers. Two rules are stricter than the text, as its published vectors
 * want: nothing is consistent with the empty tree, and every hash has 32 bytes.
 */
import type { Verifier } from './crypto-port.ts';
import { concatBytes, fromHex, hex } from './encoding.ts';
import { HyphaError } from './hypha-error.ts';

/** Root of the tree without leaves: SHA-256 of nothing. */
export const EMPTY_ROOT: Uint8Array = fromHex(
  'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
);

/**
 * Hash of a complete subtree: `index` counts the subtrees of 2^`level` leaves from the left, so
 * `(0, i)` is leaf i. Only asked for subtrees whose leaves are all below the size in question.
 */
export type ReadNode = (level: number, index: number) => Uint8Array | Promise<Uint8Array>;

const HASH_BYTES = 32;
const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

export function leafHash(verifier: Verifier, entry: Uint8Array): Uint8Array {
  return verifier.sha256(concatBytes(LEAF, entry));
}

export function nodeHash(verifier: Verifier, left: Uint8Array, right: Uint8Array): Uint8Array {
  return verifier.sha256(concatBytes(NODE, left, right));
}

/** Root over leaves that are all at hand. */
export function merkleRoot(verifier: Verifier, leafHashes: readonly Uint8Array[]): Uint8Array {
  let level = leafHashes;
  if (level.length === 0) return EMPTY_ROOT;
  // A node without a right neighbour moves up unchanged, which is RFC 9162's split at a power of two.
  while (level.length > 1) {
    const above: Uint8Array[] = [];
    for (let i = 0; i < level.length; i += 2) {
      const [left, right] = [level[i] ?? EMPTY_ROOT, level[i + 1]];
      above.push(right === undefined ? left : nodeHash(verifier, left, right));
    }
    level = above;
  }
  return level[0] ?? EMPTY_ROOT;
}

/** Root of the first `size` leaves, from stored subtrees. */
export async function rootAt(
  verifier: Verifier,
  size: number,
  readNode: ReadNode,
): Promise<Uint8Array> {
  return size === 0 ? EMPTY_ROOT : await rangeHash(verifier, { begin: 0, end: size }, readNode);
}

/** Path from leaf `index` to the root at `size`, lowest first (RFC 9162 §2.1.3.1). Throws `RangeError`. */
export async function inclusionProof(
  verifier: Verifier,
  { index, size }: { readonly index: number; readonly size: number },
  readNode: ReadNode,
): Promise<Uint8Array[]> {
  if (!isCount(index) || !isCount(size) || index >= size)
    throw new RangeError(`no leaf ${index} in a tree of ${size}`);
  const siblings: Range[] = [];
  for (let range = { begin: 0, end: size }; range.end - range.begin > 1; ) {
    const { left, right } = split(range);
    siblings.push(index < right.begin ? right : left);
    range = index < right.begin ? left : right;
  }
  return await Promise.all(
    siblings.reverse().map((sibling) => rangeHash(verifier, sibling, readNode)),
  );
}

/** Proof that the tree of `to` leaves extends the one of `from` (RFC 9162 §2.1.4.1). Throws `RangeError`. */
export async function consistencyProof(
  verifier: Verifier,
  { from, to }: { readonly from: number; readonly to: number },
  readNode: ReadNode,
): Promise<Uint8Array[]> {
  if (!isCount(from) || !isCount(to) || from < 1 || from > to)
    throw new RangeError(`no tree of ${to} extends one of ${from}`);
  const parts: Range[] = [];
  let range = { begin: 0, end: to };
  while (from < range.end) {
    const { left, right } = split(range);
    parts.push(from <= right.begin ? right : left);
    range = from <= right.begin ? left : right;
  }
  // The verifier has the old root: only when it is no subtree of the new tree, its last part is needed.
  if (range.begin > 0) parts.push(range);
  return await Promise.all(parts.reverse().map((part) => rangeHash(verifier, part, readNode)));
}

/** Passes when the leaf is number `index` of the tree. Throws `E_PROOF` (RFC 9162 §2.1.3.2). */
export function verifyInclusion(
  verifier: Verifier,
  claim: {
    readonly index: number;
    readonly size: number;
    readonly leafHash: Uint8Array;
    readonly proof: readonly Uint8Array[];
    readonly root: Uint8Array;
  },
): void {
  const { index, size, proof, root } = claim;
  const refuse = (reason: string) =>
    refuseProof(`that leaf ${index} is in the log of ${size} entries: ${reason}`);
  if (!isCount(index) || !isCount(size) || index >= size) throw refuse('there is no such leaf');
  if (![claim.leafHash, root, ...proof].every(isHash)) throw refuse('a hash has not 32 bytes');
  let node = index;
  let last = size - 1;
  let hash = claim.leafHash;
  for (const sibling of proof) {
    if (last === 0) throw refuse('the proof is too long');
    if (isOdd(node) || node === last) {
      hash = nodeHash(verifier, sibling, hash);
      for (; !isOdd(node) && node !== 0; node /= 2) last = half(last);
    } else {
      hash = nodeHash(verifier, hash, sibling);
    }
    node = half(node);
    last = half(last);
  }
  if (last !== 0) throw refuse('the proof is too short');
  if (!isSame(hash, root)) throw refuse(`the proof leads to root ${hex(hash)}, not ${hex(root)}`);
}

/**
 * Passes when the tree of `to` leaves begins with the `from` leaves of the other. Throws `E_PROOF`
 * (RFC 9162 §2.1.4.2).
 */
export function verifyConsistency(
  verifier: Verifier,
  claim: {
    readonly from: number;
    readonly to: number;
    readonly fromRoot: Uint8Array;
    readonly toRoot: Uint8Array;
    readonly proof: readonly Uint8Array[];
  },
): void {
  const { from, to, fromRoot, toRoot, proof } = claim;
  const refuse = (reason: string) =>
    refuseProof(`that the log of ${to} entries extends the one of ${from}: ${reason}`);
  if (!isCount(from) || !isCount(to) || from < 1 || from > to)
    throw refuse('no such pair of sizes');
  if (![fromRoot, toRoot, ...proof].every(isHash)) throw refuse('a hash has not 32 bytes');
  if (from === to) {
    if (proof.length > 0) throw refuse('the proof is too long');
    if (!isSame(fromRoot, toRoot)) throw refuse(`roots ${hex(fromRoot)} and ${hex(toRoot)} differ`);
    return;
  }
  let node = from - 1;
  let last = to - 1;
  for (; isOdd(node); node = half(node)) last = half(last);
  // `node` is 0 when the old tree is complete: then its root is the first part of the path.
  const [start, ...path] = node === 0 ? [fromRoot, ...proof] : proof;
  if (start === undefined) throw refuse('the proof is too short');
  let oldHash = start;
  let newHash = start;
  for (const part of path) {
    if (last === 0) throw refuse('the proof is too long');
    if (isOdd(node) || node === last) {
      oldHash = nodeHash(verifier, part, oldHash);
      newHash = nodeHash(verifier, part, newHash);
      for (; !isOdd(node) && node !== 0; node /= 2) last = half(last);
    } else {
      newHash = nodeHash(verifier, newHash, part);
    }
    node = half(node);
    last = half(last);
  }
  if (last !== 0) throw refuse('the proof is too short');
  if (!isSame(oldHash, fromRoot)) throw refuse(`the proof does not lead to root ${hex(fromRoot)}`);
  if (!isSame(newHash, toRoot)) throw refuse(`the proof does not lead to root ${hex(toRoot)}`);
}

/** Leaves from `begin` up to and without `end`. */
interface Range {
  readonly begin: number;
  readonly end: number;
}

/** At the largest power of two below the number of leaves. */
function split({ begin, end }: Range): { readonly left: Range; readonly right: Range } {
  const middle = begin + 2 ** levelBelow(end - begin);
  return { left: { begin, end: middle }, right: { begin: middle, end } };
}

/** Hash of a subtree as `split` makes them: complete ones left to right, each at most as large as the last. */
async function rangeHash(
  verifier: Verifier,
  range: Range,
  readNode: ReadNode,
): Promise<Uint8Array> {
  const parts: (Uint8Array | Promise<Uint8Array>)[] = [];
  for (let { begin } = range; begin < range.end; ) {
    const level = floorLog2(range.end - begin);
    parts.push(readNode(level, begin / 2 ** level));
    begin += 2 ** level;
  }
  const hashes = await Promise.all(parts);
  return hashes.reduceRight((right, left) => nodeHash(verifier, left, right));
}

/** Exponent of the largest power of two below `count`, which is at least 2. */
function levelBelow(count: number): number {
  const level = floorLog2(count);
  return 2 ** level === count ? level - 1 : level;
}

/** Exact for all safe integers, which `Math.log2` is not. */
function floorLog2(count: number): number {
  return count.toString(2).length - 1;
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function isOdd(value: number): boolean {
  return value % 2 === 1;
}

function half(value: number): number {
  return Math.floor(value / 2);
}

function isHash(bytes: Uint8Array): boolean {
  return bytes.length === HASH_BYTES;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function refuseProof(what: string): HyphaError {
  return new HyphaError('E_PROOF', `the proof does not show ${what}`);
}
