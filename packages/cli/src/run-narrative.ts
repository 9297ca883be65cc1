import type { BodyOf, JournalBody } from '@hypha/protocol';
import type { Output } from './output.ts';

/**
 * A journal event as one line for a person; undefined for those that say nothing new. Step results say
 * what was made and, on simulated SALs, that nothing was; so does the end when any step did.
 */
export function describeEvent(
  body: JournalBody,
  output: Output,
  { simulated }: { simulated: boolean } = { simulated: false },
): string | undefined {
  switch (body.type) {
    case 'accepted':
      return `accepted      generation ${body.generation}, signed by ${body.keyids.length} key`;
    case 'started':
      return `started       by ${body.runner}`;
    case 'step-intent':
      return `step ${pad(body.step)}      ${intentText(body)}`;
    case 'step-result':
      return `step ${pad(body.step)} ${output.style('green', 'done')} ${resultText(body.result)}${output.style('dim', `${body.durationMs} ms`)}`;
    case 'step-error':
      return `step ${pad(body.step)} ${output.style('red', 'FAIL')} ${body.error.code}: ${body.error.message}`;
    case 'log':
      return `log           ${body.message}${Object.keys(body.fields ?? {}).length > 0 ? ` ${JSON.stringify(body.fields)}` : ''}`;
    case 'committed':
      return `committed     ${body.desired.length} resources`;
    case 'undo-intent':
      return `undo ${pad(body.step)}      …`;
    case 'undo-result':
      return `undo ${pad(body.step)} ${body.leftover === null ? 'done' : `LEFT ${body.leftover}`}`;
    case 'finished':
      return finishedText(body, output, simulated);
  }
}

function pad(step: number): string {
  return String(step).padStart(3);
}

function intentText(body: BodyOf<'step-intent'>): string {
  const wait = waitText(body);
  if (wait !== undefined) return wait;
  const differs = (body.differs ?? []).length === 0 ? '' : ` (${body.differs?.join(', ')})`;
  return `${target(body)} … ${body.action}${differs}`;
}

/** What only waits, in words. The arguments come from the script. */
function waitText({ verb, args }: BodyOf<'step-intent'>): string | undefined {
  const { duration, untilMs, of, label, every, timeout } = Object(args);
  if (verb === 'waitFor') return `waits for ${label}, looks every ${every}, at most ${timeout}`;
  if (verb !== 'sleep') return undefined;
  if (typeof untilMs !== 'number') return `sleeps ${duration}`;
  return `waits for ${of}, looks again at ${new Date(untilMs).toISOString()}`;
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
  const undone = body.undone > 0 ? `, ${body.undone} steps undone` : '';
  const left = body.leftovers.map(
    (item) => `\n              left over: ${item.kind} ${item.name}: ${item.reason}`,
  );
  return `${state}${simulated ? ' (simulated)' : ''}${undone}${left.join('')}`;
}
