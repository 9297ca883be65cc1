import { SeededRandom } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { type RidLock, RidLocks } from './rid-locks.ts';

const alone = (rid: string): RidLock => ({ rid, isExclusive: true });
const shared = (rid: string): RidLock => ({ rid, isExclusive: false });

/** Names of those that hold everything they asked for, in the order they got it. */
function table() {
  const locks = new RidLocks();
  const held: string[] = [];
  const wants = new Map<string, readonly RidLock[]>();
  return {
    held,
    take: (who: string, ...wanted: RidLock[]) => {
      wants.set(who, wanted);
      locks.take(wanted, () => held.push(who));
    },
    release: (who: string) => {
      held.splice(held.indexOf(who), 1);
      locks.release(wants.get(who) ?? []);
    },
  };
}

describe('locks of resources', () => {
  test('let one at a time change a resource, in the order they came', () => {
    const { held, take, release } = table();
    for (const who of ['first', 'second', 'third']) take(who, alone('a'));
    expect(held).toEqual(['first']);
    release('first');
    expect(held).toEqual(['second']);
    release('second');
    expect(held).toEqual(['third']);
  });

  test('let any number look at it together, but nobody pass one that waits', () => {
    const { held, take, release } = table();
    take('reads', shared('a'));
    take('reads too', shared('a'));
    take('changes', alone('a'));
    take('reads late', shared('a'));
    expect(held).toEqual(['reads', 'reads too']);
    release('reads');
    expect(held).toEqual(['reads too']);
    release('reads too');
    expect(held).toEqual(['changes']);
    release('changes');
    expect(held).toEqual(['reads late']);
  });

  test('are held all or not at all, and nobody waits in a circle', () => {
    const { held, take, release } = table();
    take('one', alone('a'), shared('b'));
    take('two', alone('b'), shared('a'));
    take('three', alone('c'));
    expect(held).toEqual(['one', 'three']);
    release('one');
    expect(held).toEqual(['three', 'two']);
  });

  test('are granted at once to who needs none', () => {
    const { held, take } = table();
    take('free');
    expect(held).toEqual(['free']);
  });

  test('let everybody through in the end, never two that exclude each other', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = new SeededRandom(seed);
      const { held, take, release } = table();
      const wants = new Map<string, RidLock[]>();
      const through: string[] = [];
      const waiting = Array.from({ length: 30 }, (_, at) => String(at));
      while (through.length < 30) {
        const next = waiting[0];
        if (next !== undefined && random.chance(0.6)) {
          waiting.shift();
          const rids = ['a', 'b', 'c', 'd'].filter(() => random.chance(0.5));
          const wanted = rids.map((rid) => ({ rid, isExclusive: random.chance(0.4) }));
          wants.set(next, wanted);
          take(next, ...wanted);
        } else if (held.length > 0) {
          const who = random.pick(held);
          release(who);
          through.push(who);
        } else if (next === undefined) {
          throw new Error(`seed ${seed}: nobody goes on`);
        }
        for (const rid of ['a', 'b', 'c', 'd']) {
          const on = held.flatMap((who) => wants.get(who) ?? []).filter((lock) => lock.rid === rid);
          expect(on.length > 1 && on.some((lock) => lock.isExclusive), `seed ${seed}`).toBe(false);
        }
      }
    }
  });
});
