import {
  AdmissionPayload,
  AuthorityPayload,
  EnrolPayload,
  fromBase64,
  keyIdOf,
  type LogEntry,
  nodeIdOf,
  parseStrictJson,
  ReceiptPayload,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';

/** A log entry as one sentence. What it says is the payload's word; `audit verify` checks signatures. */
export function describeEntry(entry: LogEntry): string {
  const payload = parseStrictJson(fromBase64(entry.envelope.payload));
  const signer = entry.envelope.signatures.map(({ keyid }) => keyid.slice(0, 20)).join(', ');
  switch (entry.kind) {
    case 'authority':
      return describeChange(AuthorityPayload.parse(payload), signer);
    case 'admission': {
      const { name, exp } = AdmissionPayload.parse(payload);
      return `${signer} admitted a node as ${name}, until ${new Date(exp * 1000).toISOString()}`;
    }
    case 'enrol': {
      const { publicKey, facts } = EnrolPayload.parse(payload);
      const node = nodeIdOf(nodeVerifier, fromBase64(publicKey));
      return `node ${node} enrolled from ${facts.hostname}`;
    }
    case 'receipt': {
      const { node, mode, realm, deployment, generation, state, steps, run } =
        ReceiptPayload.parse(payload);
      return `node ${node} finished ${mode} of ${realm}/${deployment} generation ${generation}: ${state} after ${steps} steps (${run})`;
    }
    default:
      return `${entry.kind} ${entry.digest}`;
  }
}

function describeChange({ change, seq }: AuthorityPayload, signer: string): string {
  switch (change.type) {
    case 'genesis':
      return `authority ${seq}: genesis with ${change.rootKeys.length} root keys, ${change.threshold} must sign`;
    case 'grant':
      return `authority ${seq}: ${signer} granted ${change.grant.role} to ${change.grant.name} (${keyIdOf(nodeVerifier, fromBase64(change.grant.publicKey))})`;
    case 'revoke':
      return `authority ${seq}: ${signer} revoked ${change.keyid}: ${change.reason}`;
    case 'revoke-node':
      return `authority ${seq}: ${signer} revoked node ${change.node}: ${change.reason}`;
    case 'rotate-root':
      return `authority ${seq}: ${signer} rotated the root: ${change.rootKeys.length} keys, ${change.threshold} must sign`;
    case 'set-ledger-key':
      return `authority ${seq}: ${signer} made ${keyIdOf(nodeVerifier, fromBase64(change.publicKey))} the key of the ledger`;
    case 'set-policy':
      return `authority ${seq}: ${signer} set the policy ${JSON.stringify(change.policy)}`;
  }
}
