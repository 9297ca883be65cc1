import type { BodyOf, JournalBody } from '@hypha/protocol';
import { duration, type Output } from './output.ts';

/** What is known of a run besides the event that is told. */
interface Told {
  readonly simulated: boolean;
  /** What a step is on: steps that run at once end in any order. */
  readonly labelOf?: (step: number) => string;
}

/** Tells the events of one run, in their order. */
export class RunNarrator {
  readonly #output: Output;
  // step → what it is on
  readonly #labels = new Map<number, string>();
  #isStarted = false;

  constructor(output: Output) {
    this.#output = output;
  }

  tell(body: JournalBody, simulated: boolean): string | undefined {
    if (body.type === 'step-intent') this.#labels.set(body.step, subjectOf(body));
    if (body.type === 'started') {
      if (this.#isStarted) return `taken up      by ${body.runner}`;
      this.#isStarted = true;
    }
    const labelOf = (step: number) => this.#labels.get(step) ?? '';
    return describeEvent(body, this.#output, { simulated, labelOf });
  }
}

/**
 * A journal event as one line for a person; undefined for those that say nothing new. Step results say
 * what was made and, on simulated SALs, that nothing was; so does the end when any step did.
 */
export function describeEvent(
  body: JournalBody,
  output: Output,
  { simulated, labelOf = () => '' }: Told = { simulated: false },
): string | undefined {
  switch (body.type) {
    case 'accepted':
      return `accepted      generation ${body.generation}, signed by ${body.keyids.length} key`;
    case 'started':
      return `started       by ${body.runner}`;
    case 'step-intent':
      return `step ${pad(body.step)}      ${intentText(body)}`;
    case 'step-result':
      return `step ${pad(body.step)} ${output.style('green', 'done')} ${spaced(labelOf(body.step))}${resultText(body.result)}${output.style('dim', duration(body.durationMs))}`;
    case 'step-error':
      return `step ${pad(body.step)} ${output.style('red', 'FAIL')} ${spaced(labelOf(body.step))}${body.error.code}: ${body.error.message}`;
    case 'log':
      return `log           ${body.message}${Object.keys(body.fields ?? {}).length > 0 ? ` ${JSON.stringify(body.fields)}` : ''}`;
    case 'committed':
      return `committed     ${body.desired.length} resources`;
    case 'undo-intent':
      return `undo ${pad(body.step)}      ${spaced(labelOf(body.step))}…`;
    case 'undo-result':
      return `undo ${pad(body.step)} ${body.leftover === null ? 'done' : 'LEFT'} ${labelOf(body.step)}${body.leftover === null ? '' : `: ${body.leftover}`}`.trimEnd();
    case 'finished':
      return finishedText(body, output, simulated);
  }
}

function pad(step: number): string {
  return String(step).padStart(3);
}

function spaced(text: string): string {
  return text === '' ? '' : `${text} `;
}

function subjectOf({ verb, kind, name }: BodyOf<'step-intent'>): string {
  return kind === null || name === null ? verb : `${kind} ${name}`;
}

function intentText(body: BodyOf<'step-intent'>): string {
  const wait = waitText(body);
  if (wait !== undefined) return wait;
  const differs = (body.differs ?? []).length === 0 ? '' : ` (${body.differs?.join(', ')})`;
  const action = body.class === 'read' && body.action === 'run' ? 'read' : body.action;
  return `${target(body)} … ${action}${differs}`;
}

/** What only waits, in words. The arguments come from the script. */
function waitText({ verb, args, before }: BodyOf<'step-intent'>): string | undefined {
  const { duration: time, of, label, every = '5s', timeout = '10m' } = Object(args);
  if (verb === 'waitFor') return `waits for ${label}: looks every ${every}, at most ${timeout}`;
  if (verb === 'run.undo') return `undoes step ${Object(args).step} of ${Object(args).run}`;
  if (verb !== 'sleep') return undefined;
  const until = Object(before).untilMs ?? Object(args).untilMs;
  const when = Number.isSafeInteger(until) ? ` until ${new Date(until).toISOString()}` : '';
  return of === undefined ? `sleeps ${time}${when}` : `waits for ${of}, looks again${when}`;
}

function target(body: { verb: string; name: string | null }): string {
  return body.name === null ? body.verb : `${body.verb} ${body.name}`;
}

function resultText(result: unknown): string {
  if (typeof result !== 'object' || result === null) return '';
  const { address, simulated } = result as { address?: unknown; simulated?: unknown };
  const parts = [
    ...(typeof address === 'string' && address !== '' ? [`[${address}]`] : []),
    ...(simulated === true ? ['(simulated)'] : []),
  ];
  return parts.length === 0 ? '' : `${parts.join(' ')} `;
}

function finishedText(body: BodyOf<'finished'>, output: Output, simulated: boolean): string {
  const state = output.style(body.state === 'succeeded' ? 'green' : 'red', body.state);
  const undone =
    body.undone === 0 ? '' : `, ${body.undone} ${body.undone === 1 ? 'step' : 'steps'} undone`;
  const left = body.leftovers.map(
    (item) => `\n              left over: ${item.kind} ${item.name}: ${item.reason}`,
  );
  return `${state}${simulated ? ' (simulated)' : ''}${undone}${left.join('')}`;
}
