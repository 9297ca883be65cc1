import {
  canonicalJson,
  type ErrorCode,
  type GuestCall,
  type GuestFailure,
  HyphaError,
  isErrorCode,
} from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { boundedText } from './json-bounds.ts';
import type { RunRecord, StepIntent } from './run-record.ts';
import { recordedArgs } from './step-call.ts';

/** What a guest may say of itself; any other code has to be that of a step that failed. */
const GUEST_CODES: readonly ErrorCode[] = [
  'E_SCRIPT',
  'E_SCRIPT_SYNTAX',
  'E_CPU',
  'E_MEMORY',
  'E_OUTPUT',
  'E_HOST_CALLS',
  // Of a `waitFor`, whose condition is the script's.
  'E_TIMEOUT',
];

/** A script that did not end well, as the error its run fails with, at its place in the signed source. */
export function scriptFailure(record: RunRecord, failure: GuestFailure): HyphaError {
  const step = findFailedStep(record, failure);
  const known = isErrorCode(failure.code) ? failure.code : 'E_SCRIPT';
  const code = step !== undefined || GUEST_CODES.includes(known) ? known : 'E_SCRIPT';
  const outcome = step === undefined ? undefined : record.outcomes.get(step);
  const hint = outcome?.type === 'step-error' ? outcome.error.hint : undefined;
  return new HyphaError(code, boundedText(failure.message, ENGINE_LIMITS.messageCharsMax), {
    where: { ...failure.place, ...(step === undefined ? {} : { step }) },
    ...(hint === undefined ? {} : { hint }),
    details: { stack: boundedText(failure.stack, ENGINE_LIMITS.messageCharsMax) },
  });
}

/** The newest step that failed like this: the error the script let through. */
function findFailedStep(record: RunRecord, failure: GuestFailure): number | undefined {
  const failed = [...record.outcomes.values()]
    .filter((outcome) => outcome.type === 'step-error')
    .filter(({ error }) => error.code === failure.code);
  // A guest cuts a long message.
  const isCut = (message: string) => failure.message !== '' && message.startsWith(failure.message);
  const same = failed.filter(({ error }) => isCut(error.message)).at(-1);
  // A script may say it in its own words; but what it may say of itself need not be of any step.
  const isOwn = GUEST_CODES.some((code) => code === failure.code);
  return (same ?? (isOwn ? undefined : failed.at(-1)))?.step;
}

/** Throws `E_NONDETERMINISM` with both sides when a call is not the one that was recorded as this step. */
export function assertSameCall(call: GuestCall, intent: StepIntent): void {
  const made = {
    verb: call.verb.toWellFormed(),
    name: call.name === null ? null : boundedText(call.name, ENGINE_LIMITS.nameCharsMax),
    args: recordedArgs(call.args),
  };
  const { verb, name, args } = intent;
  if (canonicalJson(made) === canonicalJson({ verb, name, args })) return;
  throw new HyphaError(
    'E_NONDETERMINISM',
    `step ${call.call} was ${labelOf(intent)} when it was recorded and is ${labelOf(made)} now`,
    {
      where: { ...call.place, step: call.call },
      details: { recorded: { verb, name, args }, made },
    },
  );
}

function labelOf(call: { verb: string; name: string | null }): string {
  return call.name === null ? call.verb : `${call.verb} ${call.name}`;
}
