import { HyphaError } from './hypha-error.ts';
import type { ScriptPayload } from './script-payload.ts';

/**
 * What is signed must happen as signed, or be refused: nothing is left out silently. To be asked by whoever signs,
 * carries or admits.
 * @throws HyphaError `E_UNSUPPORTED` for a part of the payload that its mode has no use for
 */
export function checkModeFits({
  id,
  mode,
  secrets,
  expect,
}: Pick<ScriptPayload, 'id' | 'mode' | 'secrets' | 'expect'>): void {
  const refuse = (path: string, what: string, hint: string) => {
    throw new HyphaError('E_UNSUPPORTED', `cannot accept ${id}: ${what}`, {
      where: { path },
      hint,
    });
  };
  const isUnused = mode === 'destroy' && Object.keys(secrets).length > 0;
  if (isUnused) refuse('secrets', 'a destroy takes no secrets', 'sign it without secrets');
  if (expect !== undefined && mode !== 'apply') {
    refuse('expect', `a ${mode} has no plan to expect`, 'sign it without expect, or as an apply');
  }
}
