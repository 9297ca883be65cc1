import { HyphaError } from '@hypha/protocol';
import { z } from 'zod';

const UNITS: Readonly<Record<string, number>> = {
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
};

/** `512MiB`, `1.5GiB` or a number of bytes. Throws `E_ARGUMENT` on anything else. */
export function parseBytes(text: string | number): number {
  if (typeof text === 'number') {
    if (Number.isSafeInteger(text) && text >= 0) return text;
    throw new HyphaError('E_ARGUMENT', `not a size in bytes: ${text}`);
  }
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]+)?$/.exec(text);
  const unit = match === null ? undefined : UNITS[match[2] ?? 'B'];
  const bytes = match === null || unit === undefined ? Number.NaN : Number(match[1]) * unit;
  if (!Number.isSafeInteger(Math.round(bytes))) {
    throw new HyphaError('E_ARGUMENT', `not a size: ${JSON.stringify(text)}`, {
      hint: 'write it like 512MiB or 1GiB',
    });
  }
  return Math.round(bytes);
}

/** A size in a spec: text with a unit or bytes; always bytes once parsed. */
export const Bytes = z.union([z.string(), z.number()]).transform((value, context) => {
  try {
    return parseBytes(value);
  } catch {
    context.addIssue({ code: 'custom', message: 'not a size: write it like 512MiB' });
    return z.NEVER;
  }
});
