import { expect, test } from 'vitest';
import { parseSubvolumes } from './subvolume-list.ts';

const uuid = (digit: string) => `${digit.repeat(8)}-0000-0000-0000-000000000000`;
const dash = `-${' '.repeat(35)}`;

function line(id: number, parent: number, path: string, parentUuid = dash): string {
  return `ID ${id} gen 7 parent ${parent} top level ${parent} parent_uuid ${parentUuid} uuid ${uuid('a')} path ${path}`;
}

test('reads what btrfs-progs 6.2 prints, spaces in paths included', () => {
  const text = `${line(257, 256, 'volumes')}\n${line(260, 256, 'a b', uuid('b'))}\n`;
  expect(parseSubvolumes(text, 256)).toEqual([
    { id: 257, path: 'volumes', uuid: uuid('a'), parentUuid: null },
    { id: 260, path: 'a b', uuid: uuid('a'), parentUuid: uuid('b') },
  ]);
});

test('leaves out the pool itself and what lies outside of it', () => {
  const text = [line(256, 5, 'pool'), line(300, 5, 'other'), line(257, 256, 'in')].join('\n');
  expect(parseSubvolumes(text, 256).map(({ path }) => path)).toEqual(['in']);
});

test('finds nested ones below others', () => {
  const text = [line(259, 258, 'a/b/c'), line(258, 257, 'a/b'), line(257, 5, 'a')].join('\n');
  expect(parseSubvolumes(text, 5).map(({ path }) => path)).toEqual(['a/b/c', 'a/b', 'a']);
});

test('believes neither line of an id that a name with a line break forged', () => {
  const forged = `mine/x\n${line(300, 270, 'volumes/mine/victim')}`;
  const text = [line(270, 5, 'volumes/mine'), line(271, 270, forged), line(300, 5, 'victim')];
  expect(parseSubvolumes(text.join('\n'), 5).map(({ id }) => id)).toEqual([270, 271]);
});

test('does not hang on forged parents that form a ring', () => {
  expect(parseSubvolumes(`${line(300, 301, 'a')}\n${line(301, 300, 'b')}`, 5)).toEqual([]);
});

test('lets no path leave the pool', () => {
  expect(parseSubvolumes(line(300, 5, '../outside'), 5)).toEqual([]);
});
