/**
 * The delivery rule of design §10, over random schedules: whatever order outcomes came in, a replay leads a fresh
 * guest through the same turns.
 */
import type { GuestTurn, Json } from '@hypha/protocol';
import { SeededRandom } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';
import type { Script, ScriptApi } from './testing/scripted-guest.ts';

const SEEDS = 150;
const TIME = { timeout: 120_000 };

/** A script that takes its path from the order it hears of things: chunks, races, chains and sleeps. */
function randomScript(seed: number): Script {
  return async ({ call, log, now }) => {
    const random = new SeededRandom(seed);
    let heard = 0;
    const one = async (name: string): Promise<Json> => {
      const verb = random.pick(['box.ensure', 'box.peek', 'box.paint', 'sleep']);
      try {
        const value = await makeCall(call, random, verb, name);
        heard += 1;
        return value;
      } catch (error) {
        log('failed', { name, code: (error as { code: string }).code });
        return null;
      }
    };
    const chain = async (name: string) => {
      for (let left = random.int(1, 3); left > 0; left--) await one(name);
      log('chain ends', { name, heard, at: now() });
    };
    for (let round = 0; round < 3; round++) {
      const names = Array.from({ length: random.int(1, 6) }, (_, at) => `b${at % 4}`);
      if (random.chance(0.5)) await Promise.all(names.map(chain));
      else await Promise.race(names.map(chain));
      // Goes on otherwise when it heard of another number of things.
      if (heard % 2 === 0) await one(`odd${heard}`);
    }
    return heard;
  };
}

function makeCall(call: ScriptApi['call'], random: SeededRandom, verb: string, name: string) {
  if (verb === 'sleep') return call('sleep', null, { duration: random.int(0, 900) });
  if (verb === 'box.paint') return call(verb, name, { colour: random.pick(['red', 'blue']) });
  if (verb === 'box.peek') return call(verb, name);
  return call(verb, name, { size: random.int(1, 3), broken: random.chance(0.1) });
}

/** A rig whose calls take as long as the seed says, and which keeps every turn of its newest guest. */
function rigFor(script: Script, schedule: number): { rig: SagaRig; turns: GuestTurn[] } {
  const random = new SeededRandom(schedule);
  const rig = new SagaRig(script);
  const turns: GuestTurn[] = [];
  rig.tamper = (turn) => turns.push(structuredClone(turn));
  rig.world.onApply = async ({ signal }) => {
    if (random.chance(0.7)) await rig.clock.sleep(random.int(0, 500), signal);
  };
  return { rig, turns };
}

describe('a script that takes its path from the order of outcomes', () => {
  test('takes the same one when it is replayed', TIME, async () => {
    const orders = new Set<string>();
    let outcomes = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const script = randomScript(seed);
      const { rig, turns } = rigFor(script, seed);
      const outcome = await rig.run();
      const [guest] = rig.guests;
      orders.add(`${guest?.turns.join(' ')}`);
      outcomes += guest?.turns.length ?? 0;
      expect(rig.world.violations, `seed ${seed}`).toEqual([]);

      const again = rigFor(script, seed + 1);
      again.rig.journal.events.push(...rig.journal.events.filter(isBeforeCommit));
      expect(await again.rig.run(), `seed ${seed}`).toEqual(outcome);
      expect(again.turns, `seed ${seed}`).toEqual(turns);
      expect(again.rig.world.effects, `seed ${seed}`).toEqual([]);
    }
    process.stdout.write(`${SEEDS} seeds, ${orders.size} orders of ${outcomes} outcomes\n`);
    // The schedules differ, or this proves nothing.
    expect(orders.size).toBeGreaterThan(SEEDS / 2);
  });

  test('takes the same one up to where any beginning of its journal ends', TIME, async () => {
    let replays = 0;
    for (let seed = 1; seed <= SEEDS / 15; seed++) {
      const script = randomScript(seed);
      const { rig, turns } = rigFor(script, seed);
      await rig.run();
      const { events } = rig.journal;
      for (let length = 0; length < events.length; length++) {
        const again = rigFor(script, seed * 1_000 + length);
        again.rig.journal.events.push(...events.slice(0, length).filter(isBeforeCommit));
        // Whoever goes on does so after what is recorded.
        again.rig.clock.advance((events[length - 1]?.at ?? 0) - again.rig.clock.nowMs());
        const recorded = again.rig.journal.bodies().filter(isOutcome);
        expect((await again.rig.run()).state).toBe('committed');
        const delivered = again.rig.guests[0]?.turns.slice(0, recorded.length);
        expect(delivered).toEqual(recorded.map(({ step }) => step));
        const until = recorded.length + 1;
        expect(again.turns.slice(0, until), `seed ${seed}`).toEqual(turns.slice(0, until));
        expect(again.rig.world.violations).toEqual([]);
        replays += 1;
      }
    }
    process.stdout.write(`${replays} beginnings replayed\n`);
  });

  test('ends the same with several crashes on the way', TIME, async () => {
    let crashes = 0;
    for (let seed = 1; seed <= SEEDS / 2; seed++) {
      const random = new SeededRandom(seed);
      const { rig } = rigFor(randomScript(seed), seed);
      const at = Array.from({ length: 3 }, () => random.int(1, 60));
      const { outcome } = await rig.runWithCrashes(at);
      crashes += rig.journal.epoch - 1;
      expect(outcome.state, `seed ${seed}`).toBe('committed');
      expect(rig.world.violations, `seed ${seed}`).toEqual([]);
      // All that is left is whole: a step that failed was undone.
      const boxes = Object.values(rig.world.snapshot());
      expect(
        boxes.every(({ whole }) => whole),
        `seed ${seed}`,
      ).toBe(true);
    }
    process.stdout.write(`${crashes} crashes in ${SEEDS / 2} schedules\n`);
  });
});

function isBeforeCommit({ body }: { body: { type: string } }): boolean {
  return body.type !== 'committed';
}

function isOutcome<T extends { type: string }>(
  body: T,
): body is Extract<T, { type: 'step-result' | 'step-error' }> {
  return body.type === 'step-result' || body.type === 'step-error';
}
