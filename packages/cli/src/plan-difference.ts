/** Planned changes in words, and how two plans differ. */
import { PlanRemoval, PlanStep } from '@hypha/protocol';
import { z } from 'zod';

const Planned = z.union([PlanStep, PlanRemoval]);
type Planned = z.infer<typeof Planned>;

/** `details.difference` of `E_PLAN_CHANGED`. */
const Differences = z.array(
  z.object({ step: z.int().optional(), was: Planned.nullable(), now: Planned.nullable() }),
);

const LINES_MAX = 20;

/** A table, a line each: what was planned and what is now. Nothing for what is no such difference. */
export function planDifferenceLines(difference: unknown): string[] {
  const parsed = Differences.safeParse(difference);
  if (!parsed.success || parsed.data.length === 0) return [];
  const shown = parsed.data.slice(0, LINES_MAX).map(({ step, was, now }) => {
    const planned = now ?? was;
    const at = step === undefined ? '' : `step ${step}`;
    return [at, planned === null ? '' : plannedSubject(planned), ...sideTexts(was, now)];
  });
  const rows = [['', '', 'WAS', 'NOW'], ...shown];
  const widths = [0, 1, 2].map((at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  const more = parsed.data.length - shown.length;
  return [
    ...rows.map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join('  ')
        .trimEnd(),
    ),
    ...(more === 0 ? [] : [`and ${more} more`]),
  ];
}

/**
 * Two steps may do the same to different things, and to the same thing in different ways: where both sides would read
 * the same, also in what they are not.
 */
function sideTexts(was: Planned | null, now: Planned | null): [string, string] {
  const [before, after] = [sideText(was), sideText(now)];
  if (was === null || now === null || before !== after) return [before, after];
  const [of, ofNow] = [plannedSubject(was), plannedSubject(now)];
  if (of !== ofNow) return [`${before}: ${of}`, `${after}: ${ofNow}`];
  return [before, `${after}, ${contrastOf(was, now)}`];
}

function contrastOf(was: Planned, now: Planned): string {
  const isCall = 'specHash' in was && 'specHash' in now;
  if (!isCall || was.specHash !== now.specHash) return 'with another spec';
  return was.argsHash === now.argsHash ? 'of what had another spec' : 'with other arguments';
}

function sideText(planned: Planned | null): string {
  return planned === null ? 'not planned' : plannedText(planned);
}

/** `volume data`, `volume.snapshot data`, `sleep`. */
export function plannedSubject(planned: Planned): string {
  const { kind, name } = planned;
  const verb = 'verb' in planned ? planned.verb : undefined;
  if (kind === null || name === null) return verb ?? '';
  return verb === undefined || verb === `${kind}.ensure` ? `${kind} ${name}` : `${verb} ${name}`;
}

/** `replace (image, memory)`, `retain: no longer declared, its data stays`. */
export function plannedText(planned: Planned): string {
  if ('differs' in planned && planned.differs.length > 0) {
    return `${planned.action} (${planned.differs.join(', ')})`;
  }
  const why = REMOVALS[planned.action];
  return why === undefined ? planned.action : `${planned.action}: ${why}`;
}

const REMOVALS: Readonly<Record<string, string>> = {
  remove: 'no longer declared',
  retain: 'no longer declared, its data stays',
  'delete-data': 'no longer declared, its data goes',
};
