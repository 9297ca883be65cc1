import { describe, expect, test } from 'vitest';
import { refusalOf } from '../test/fleet.ts';
import {
  countCases,
  readVectorFolder,
  readVectors,
  VECTORS_MISSING,
} from '../test/shared-vectors.ts';
import {
  consistencyProof,
  EMPTY_ROOT,
  fromBase64,
  fromHex,
  hex,
  inclusionProof,
  leafHash,
  merkleRoot,
  nodeHash,
  type ReadNode,
  rootAt,
  utf8,
  verifyConsistency,
  verifyInclusion,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

interface ClassicTree {
  readonly leaves_hex: readonly string[];
  readonly leaf_hashes: readonly string[];
  readonly roots: readonly string[];
}

interface InclusionCase {
  readonly leafIdx: number;
  readonly treeSize: number;
  readonly root: string;
  readonly leafHash: string;
  readonly proof: readonly string[] | null;
  readonly wantErr: boolean;
}

describe('published vectors', () => {
  test('leaves and roots of the classic tree', (context) => {
    const classic = readVectors('merkle/ct-roots.json') as ClassicTree | undefined;
    if (classic === undefined) return context.skip(VECTORS_MISSING);
    const leaves = classic.leaves_hex.map((leaf) => leafHash(nodeVerifier, fromHex(leaf)));
    expect(leaves.map(hex)).toEqual(classic.leaf_hashes);
    const roots = classic.roots.map((_, size) => merkleRoot(nodeVerifier, leaves.slice(0, size)));
    expect(roots.map(hex)).toEqual(classic.roots);
    expect(roots).toHaveLength(9);
    countCases(context, 'Merkle roots of the classic tree', roots.length);
  });

  test('every inclusion case of transparency-dev/merkle gets its verdict', (context) => {
    const cases = readVectorFolder('merkle/testdata') as ReadonlyMap<string, InclusionCase>;
    if (cases.size === 0) context.skip(VECTORS_MISSING);
    const wrong = [...cases].filter(([, vector]) => {
      const claim = {
        index: vector.leafIdx,
        size: vector.treeSize,
        leafHash: fromBase64(vector.leafHash),
        proof: (vector.proof ?? []).map(fromBase64),
        root: fromBase64(vector.root),
      };
      const { code } = refusalOf(() => verifyInclusion(nodeVerifier, claim));
      return code !== (vector.wantErr ? 'E_PROOF' : 'none');
    });
    expect(wrong.map(([file]) => file)).toEqual([]);
    expect(cases.size).toBe(98);
    countCases(context, 'Merkle inclusion proofs of transparency-dev', cases.size);
  });
});

/** Leaves 0, 1, 2 … and the definitions of RFC 9162 §2.1.1, §2.1.3.1 and §2.1.4.1 word for word. */
const SIZES = 34;
const leaves = Array.from({ length: SIZES }, (_, n) => leafHash(nodeVerifier, utf8(`leaf ${n}`)));
const largestPowerBelow = (count: number) => {
  let k = 1;
  while (k * 2 < count) k *= 2;
  return k;
};
function treeHash(part: readonly Uint8Array[]): Uint8Array {
  const [only] = part;
  if (only === undefined) return EMPTY_ROOT;
  if (part.length === 1) return only;
  const k = largestPowerBelow(part.length);
  return nodeHash(nodeVerifier, treeHash(part.slice(0, k)), treeHash(part.slice(k)));
}
function path(index: number, part: readonly Uint8Array[]): Uint8Array[] {
  if (part.length === 1) return [];
  const k = largestPowerBelow(part.length);
  return index < k
    ? [...path(index, part.slice(0, k)), treeHash(part.slice(k))]
    : [...path(index - k, part.slice(k)), treeHash(part.slice(0, k))];
}
function subproof(from: number, part: readonly Uint8Array[], whole: boolean): Uint8Array[] {
  if (from === part.length) return whole ? [] : [treeHash(part)];
  const k = largestPowerBelow(part.length);
  return from <= k
    ? [...subproof(from, part.slice(0, k), whole), treeHash(part.slice(k))]
    : [...subproof(from - k, part.slice(k), false), treeHash(part.slice(0, k))];
}
/** Only complete subtrees below `size`, as a log stores them. */
const storedTo =
  (size: number): ReadNode =>
  (level, index) => {
    const [begin, end] = [index * 2 ** level, (index + 1) * 2 ** level];
    if (end > size) throw new RangeError(`node ${level}/${index} is not complete at ${size}`);
    return treeHash(leaves.slice(begin, end));
  };
const rootOf = (size: number) => treeHash(leaves.slice(0, size));
const flip = (bytes: Uint8Array, bit: number) =>
  bytes.map((byte, at) => (at === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte));
const refused = (check: () => void) => refusalOf(check).code;

describe('a tree of any size', () => {
  test('has the root the definition gives, from leaves and from stored subtrees', async () => {
    for (let size = 0; size <= SIZES; size++) {
      const expected = hex(rootOf(size));
      expect(hex(merkleRoot(nodeVerifier, leaves.slice(0, size)))).toBe(expected);
      expect(hex(await rootAt(nodeVerifier, size, storedTo(size)))).toBe(expected);
    }
  });

  test('proves every leaf, as the definition does, and no leaf by the proof of another', async () => {
    for (let size = 1; size <= SIZES; size++) {
      const root = rootOf(size);
      for (let index = 0; index < size; index++) {
        const proof = await inclusionProof(nodeVerifier, { index, size }, storedTo(size));
        expect(proof.map(hex)).toEqual(path(index, leaves.slice(0, size)).map(hex));
        const leaf = leaves[index] ?? root;
        verifyInclusion(nodeVerifier, { index, size, leafHash: leaf, proof, root });
        for (let other = 0; other < size; other++) {
          if (other === index) continue;
          const claim = { index: other, size, leafHash: leaf, proof, root };
          expect(refused(() => verifyInclusion(nodeVerifier, claim))).toBe('E_PROOF');
        }
      }
    }
  });

  test('proves that it extends every smaller one, as the definition does', async () => {
    for (let to = 1; to <= SIZES; to++) {
      for (let from = 1; from <= to; from++) {
        const proof = await consistencyProof(nodeVerifier, { from, to }, storedTo(to));
        expect(proof.map(hex)).toEqual(subproof(from, leaves.slice(0, to), true).map(hex));
        const claim = { from, to, fromRoot: rootOf(from), toRoot: rootOf(to), proof };
        verifyConsistency(nodeVerifier, claim);
        const changed = [
          { ...claim, fromRoot: flip(claim.fromRoot, 3) },
          { ...claim, toRoot: flip(claim.toRoot, 255) },
          { ...claim, proof: [...proof, claim.fromRoot] },
          { ...claim, proof: [claim.fromRoot, ...proof] },
          ...proof.map((part, at) => ({ ...claim, proof: proof.with(at, flip(part, at)) })),
          ...proof.map((_, at) => ({ ...claim, proof: proof.toSpliced(at, 1) })),
          ...proof.map((part, at) => ({ ...claim, proof: proof.toSpliced(at, 0, part) })),
        ];
        for (const other of changed)
          expect(refused(() => verifyConsistency(nodeVerifier, other))).toBe('E_PROOF');
      }
    }
  });

  test('beyond 32 bits is proved alike', async () => {
    // All leaves the same, so that each complete subtree of a level has one hash.
    const level: Uint8Array[] = [leafHash(nodeVerifier, utf8('same'))];
    const same: ReadNode = (at) => {
      for (let n = level.length; n <= at; n++)
        level.push(nodeHash(nodeVerifier, level[n - 1] ?? EMPTY_ROOT, level[n - 1] ?? EMPTY_ROOT));
      return level[at] ?? EMPTY_ROOT;
    };
    const [from, to, index] = [2 ** 33 + 5, Number.MAX_SAFE_INTEGER, 2 ** 40 + 1];
    const toRoot = await rootAt(nodeVerifier, to, same);
    const fromRoot = await rootAt(nodeVerifier, from, same);
    const proof = await consistencyProof(nodeVerifier, { from, to }, same);
    verifyConsistency(nodeVerifier, { from, to, fromRoot, toRoot, proof });
    const inclusion = await inclusionProof(nodeVerifier, { index, size: to }, same);
    verifyInclusion(nodeVerifier, {
      index,
      size: to,
      leafHash: level[0] ?? EMPTY_ROOT,
      proof: inclusion,
      root: toRoot,
    });
    expect(inclusion).toHaveLength(53);
  });
});

describe('what the vectors are stricter about than RFC 9162', () => {
  const root = rootOf(2);
  const [left = root, right = root] = leaves;

  test('nothing is consistent with the empty tree', () => {
    const claim = { from: 0, to: 2, fromRoot: EMPTY_ROOT, toRoot: root, proof: [] };
    expect(refused(() => verifyConsistency(nodeVerifier, claim))).toBe('E_PROOF');
    const empty = { ...claim, to: 0, toRoot: EMPTY_ROOT };
    expect(refused(() => verifyConsistency(nodeVerifier, empty))).toBe('E_PROOF');
  });

  test.for([0, 31, 33])('a hash of %i bytes is none', (length) => {
    const odd = new Uint8Array(length);
    for (const claim of [
      { index: 0, size: 1, leafHash: odd, proof: [], root: odd },
      { index: 0, size: 2, leafHash: left, proof: [odd], root },
    ]) {
      expect(refused(() => verifyInclusion(nodeVerifier, claim))).toBe('E_PROOF');
    }
    const claim = { from: 1, to: 1, fromRoot: odd, toRoot: odd, proof: [] };
    expect(refused(() => verifyConsistency(nodeVerifier, claim))).toBe('E_PROOF');
  });

  test.for([-1, 0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY])(
    '%d counts nothing',
    async (odd) => {
      const inclusion = { index: 0, size: 2, leafHash: left, proof: [right], root };
      const consistency = { from: 1, to: 2, fromRoot: left, toRoot: root, proof: [right] };
      verifyInclusion(nodeVerifier, inclusion);
      verifyConsistency(nodeVerifier, consistency);
      for (const claim of [
        { ...inclusion, index: odd },
        { ...inclusion, size: odd },
      ])
        expect(refused(() => verifyInclusion(nodeVerifier, claim))).toBe('E_PROOF');
      for (const claim of [
        { ...consistency, from: odd },
        { ...consistency, to: odd },
      ])
        expect(refused(() => verifyConsistency(nodeVerifier, claim))).toBe('E_PROOF');
      const stored = storedTo(2);
      for (const sizes of [
        { index: odd, size: 2 },
        { index: 0, size: odd },
      ])
        await expect(inclusionProof(nodeVerifier, sizes, stored)).rejects.toThrow(RangeError);
      for (const sizes of [
        { from: odd, to: 2 },
        { from: 1, to: odd },
      ])
        await expect(consistencyProof(nodeVerifier, sizes, stored)).rejects.toThrow(RangeError);
    },
  );

  test('a leaf cannot pass as an inner node, nor an inner node as a leaf', () => {
    const inner = leafHash(nodeVerifier, new Uint8Array([...left, ...right]));
    expect(hex(inner)).not.toBe(hex(root));
    const claim = { index: 0, size: 1, leafHash: inner, proof: [], root };
    expect(refused(() => verifyInclusion(nodeVerifier, claim))).toBe('E_PROOF');
  });
});
