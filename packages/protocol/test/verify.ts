import {
  canonicalBytes,
  type Envelope,
  type Signer,
  signEnvelope,
  type VerifyScriptInput,
  verifyScript,
} from '../src/index.ts';
import { nodeVerifier } from '../src/node/index.ts';
import { createFleet, NOW, refusalOf } from './fleet.ts';

export const fleet = createFleet();
export const NODE = { id: fleet.nodeId, realms: ['default'] };

export function verify(envelope: Envelope | Uint8Array, options: Partial<VerifyScriptInput> = {}) {
  return verifyScript(nodeVerifier, {
    envelope,
    authority: fleet.authority,
    profile: 'admit',
    nowSeconds: NOW + 1,
    node: NODE,
    ...options,
  });
}
export const refused = (
  envelope: Envelope | Uint8Array,
  options: Partial<VerifyScriptInput> = {},
) => refusalOf(() => verify(envelope, options));
/** Signs any bytes or object, also such as no builder would make. */
export const signed = (payload: unknown, signer: Signer = fleet.operator) =>
  signEnvelope('script', payload instanceof Uint8Array ? payload : canonicalBytes(payload), [
    signer,
  ]);
