import { HyphaError, isErrorCode } from '@hypha/protocol';
import type { StepFault } from './simulated-run.ts';

/** `3=E_IMAGE` or `web=E_HEALTH`. Throws `E_ARGUMENT`. */
export function parseStepFault(text: string): StepFault {
  const [, target, code = ''] = /^([^=]+)=(E_[A-Z_]+)$/.exec(text) ?? [];
  if (target === undefined) {
    throw new HyphaError('E_ARGUMENT', `--fail: expected STEP=CODE, got ${JSON.stringify(text)}`, {
      hint: 'the number of a step or the name of a resource, and a code: --fail 3=E_IMAGE',
    });
  }
  if (!isErrorCode(code)) {
    throw new HyphaError('E_ARGUMENT', `--fail: there is no code ${code}`, {
      hint: 'as a step would fail: E_IMAGE, E_HEALTH, E_SAL, E_STORAGE, E_TIMEOUT …',
    });
  }
  return { target, error: new HyphaError(code, `failed on purpose: --fail ${text}`) };
}
