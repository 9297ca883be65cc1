import type { Subvolume } from '@hypha/sal';

/** `ID 257 gen 7 parent 256 top level 256 parent_uuid - uuid ce8b… path volumes/a` */
const LINE =
  /^ID (\d+) gen \d+ parent (\d+) top level \d+ parent_uuid (-|[0-9a-f-]{36})\s+uuid ([0-9a-f-]{36}) path (.+)$/;

/**
 * Reads `btrfs subvolume list -u -q -p` of a pool whose root is subvolume `rootId`; progs have no JSON
 * for it. Names come from inside volumes, so a line break in one can forge lines: an id that appears
 * twice is believed from neither line, and no path may leave the pool.
 */
export function parseSubvolumes(text: string, rootId: number): readonly Subvolume[] {
  const parents = new Map<number, number>();
  const found = new Map<number, Subvolume>();
  const forged = new Set<number>();
  for (const line of text.split('\n')) {
    const match = LINE.exec(line);
    if (match === null) continue;
    const [, id = '', parent = '', parentUuid = '', uuid = '', path = ''] = match;
    const number = Number(id);
    if (parents.has(number)) forged.add(number);
    parents.set(number, Number(parent));
    const ancestor = parentUuid === '-' ? null : parentUuid;
    found.set(number, { id: number, path, uuid, parentUuid: ancestor });
  }
  return [...found.values()].filter(
    ({ id, path }) => !forged.has(id) && isInside(id, rootId, parents) && isPlain(path),
  );
}

function isInside(id: number, rootId: number, parents: ReadonlyMap<number, number>): boolean {
  let at = id;
  // Every step goes up a tree of at most this many; a forged loop ends here.
  for (let depth = 0; depth <= parents.size; depth++) {
    const parent = parents.get(at);
    if (parent === rootId) return true;
    if (parent === undefined) return false;
    at = parent;
  }
  return false;
}

function isPlain(path: string): boolean {
  return path.split('/').every((part) => part !== '' && part !== '.' && part !== '..');
}
