/** What a journal says of the steps of a run. */
import type { BodyOf, JournalBody, JournalEvent } from '@hypha/protocol';

export type Committed = BodyOf<'committed'>;

export function isCommitted(body: JournalBody): body is Committed {
  return body.type === 'committed';
}

function isOutcome(body: JournalBody): body is BodyOf<'step-result' | 'step-error'> {
  return body.type === 'step-result' || body.type === 'step-error';
}

/** A command that may run only once was begun, and nobody wrote down how it ended. */
export function isInsideOnce(events: readonly JournalEvent[]): boolean {
  const ended = new Set(events.flatMap(({ body }) => (isOutcome(body) ? [body.step] : [])));
  return events.some(({ body }) => {
    if (body.type !== 'step-intent' || body.class !== 'once' || ended.has(body.step)) return false;
    const { idempotent = false } = body.args as { readonly idempotent?: boolean };
    return !idempotent;
  });
}

/** Step, verb, resource and action; step and outcome. */
export function linesOf({ body }: JournalEvent): readonly string[] {
  if (body.type === 'step-intent') {
    return [`${numberOf(body)} ${body.verb} ${body.name} ${body.action}`];
  }
  return isOutcome(body) ? [`${numberOf(body)} ${body.type}`] : [];
}

function numberOf({ step }: { readonly step: number }): string {
  return String(step).padStart(2, '0');
}
