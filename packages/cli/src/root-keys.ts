import { HyphaError } from '@hypha/protocol';
import type { ChosenKey } from './signing-key.ts';

/** Root keys with a name each: that of the file, or `root-N` where there is none. Throws `E_ARGUMENT` for a name twice. */
export function nameRootKeys(
  keys: readonly ChosenKey[],
): { readonly publicKey: Uint8Array; readonly name: string }[] {
  const named = keys.map(({ publicKey, name }, index) => ({
    publicKey,
    name: name ?? `root-${index + 1}`,
  }));
  const twice = named.find(
    ({ name }, index) => named.findIndex((key) => key.name === name) < index,
  );
  if (twice === undefined) return named;
  throw new HyphaError('E_ARGUMENT', `two root keys are named ${twice.name}`, {
    hint: 'rename a key file: people tell the keys apart by these names',
  });
}
