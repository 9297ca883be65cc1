/**
 * Every code Hypha can answer with: HTTP status, title and what to do next. Codes are stable and never
 * reused. `where` the thing went wrong and the particulars are in the problem document.
 */
interface ErrorCodeInfo {
  readonly status: number;
  readonly title: string;
  readonly hint: string;
  /** The same request may succeed later without being changed. */
  readonly retryable?: true;
}

export const ERROR_CODES = {
  // Reading a submission (order of checks: security notes §1.4)
  E_SIZE: {
    status: 413,
    title: 'too large',
    hint: 'shrink the script or its input; a payload holds at most 256 KiB',
  },
  E_TYPE: { status: 415, title: 'unexpected content type', hint: 'send application/json' },
  E_ENVELOPE: {
    status: 400,
    title: 'not a DSSE envelope',
    hint: 'send {payloadType, payload, signatures:[{keyid, sig}]} as strict JSON',
  },
  E_PAYLOAD_TYPE: {
    status: 400,
    title: 'wrong payload type for this endpoint',
    hint: 'sign with the payloadType of what you send',
  },
  E_SIG_FORMAT: {
    status: 400,
    title: 'malformed signature',
    hint: 'one to eight signatures, each 64 bytes in canonical base64, no key twice',
  },
  E_UNKNOWN_KEY: {
    status: 403,
    title: 'key is not in the authority',
    hint: 'ask an admin: hypha authority grant',
  },
  E_KEY_REVOKED: {
    status: 403,
    title: 'key was revoked',
    hint: 'sign with another key; hypha authority show lists them',
  },
  E_KEY_EXPIRED: {
    status: 403,
    title: 'key is outside its validity',
    hint: 'ask an admin for a new grant',
  },
  E_WEAK_KEY: {
    status: 403,
    title: 'key is not a sound Ed25519 key',
    hint: 'make a new one: hypha key new',
  },
  E_SIG_MALLEABLE: {
    status: 403,
    title: 'signature is not canonical',
    hint: 'sign with an RFC 8032 implementation',
  },
  E_SIG_INVALID: {
    status: 403,
    title: 'signature does not verify',
    hint: 'the bytes changed after signing; sign again',
  },
  E_PAYLOAD: {
    status: 400,
    title: 'payload does not fit its schema',
    hint: 'correct the field named in where and sign again',
  },
  E_DIGEST: {
    status: 400,
    title: 'script does not match its digest',
    hint: 'sign again; script.sha256 is over the exact UTF-8 source',
  },
  E_AUDIENCE: {
    status: 403,
    title: 'not addressed to this node',
    hint: 'name the node in aud.nodes and sign again',
  },
  E_NOT_YET: {
    status: 403,
    title: 'not valid yet',
    hint: 'compare the clocks of signer and node (NTP)',
  },
  E_EXPIRED: { status: 403, title: 'expired', hint: 'sign again: hypha apply' },
  E_LIFETIME: {
    status: 400,
    title: 'validity too long',
    hint: 'exp - nbf is at most 86400 seconds',
  },
  E_STALE_VIEW: {
    status: 503,
    title: 'view of the log is too old',
    hint: 'wait for the ledger or staple a checkpoint',
    retryable: true,
  },
  E_LOG_FORK: {
    status: 409,
    title: 'log does not extend the pinned history',
    hint: 'keep both checkpoints as evidence and call the ledger operator',
  },
  E_CHECKPOINT: {
    status: 403,
    title: 'checkpoint is not signed by the key of the ledger',
    hint: 'compare the ledger with the authority: hypha authority show',
  },
  E_PROOF: {
    status: 409,
    title: 'proof does not hold against the checkpoint',
    hint: 'keep proof and checkpoint as evidence and call the ledger operator',
  },
  E_SCOPE: {
    status: 403,
    title: 'outside what the key may do',
    hint: 'ask an admin for a wider grant, or ask for less',
  },
  E_SIG_THRESHOLD: {
    status: 403,
    title: 'too few signatures',
    hint: 'have others sign too: hypha cosign FILE; hypha authority show says how many are needed',
  },
  E_REPLAY: {
    status: 409,
    title: 'id or nonce was used before',
    hint: 'sign again with a fresh id and nonce',
  },
  E_SUPERSEDED: {
    status: 409,
    title: 'an equal or newer generation was admitted',
    hint: 'sign again with a higher generation',
  },
  E_CONFLICT: {
    status: 409,
    title: 'conflicts with what is recorded',
    hint: 'compare with what where names',
  },
  E_UNSUPPORTED: {
    status: 501,
    title: 'not supported by this version',
    hint: 'see the README for what works',
  },
  // Authority, admission, enrolment
  E_AUTHORITY: {
    status: 409,
    title: 'authority update does not follow',
    hint: 'fetch the newest authority and sign again',
  },
  E_TOKEN: {
    status: 403,
    title: 'join token is unknown, used or expired',
    hint: 'make a new one: hypha node add NAME',
  },
  E_CHALLENGE: {
    status: 403,
    title: 'challenge is unknown, used or expired',
    hint: 'ask for a new challenge',
  },
  E_NODE_NAME: {
    status: 409,
    title: 'node name is taken by another key',
    hint: 'choose another name',
  },
  E_PENDING: {
    status: 409,
    title: 'node waits for an admin to admit it',
    hint: 'compare the fingerprint, then: hypha node admit NODE',
    retryable: true,
  },
  E_UNAUTHENTICATED: {
    status: 401,
    title: 'request signature missing or wrong',
    hint: 'sign the request (RFC 9421) with a known key',
  },
  E_FORBIDDEN: {
    status: 403,
    title: 'key may not call this',
    hint: 'use a key with the role that where names',
  },
  // Placement
  E_NO_PLACEMENT: {
    status: 409,
    title: 'no node fits',
    hint: 'see the reasons per node; hypha node list',
  },
  E_CAPACITY: {
    status: 409,
    title: 'node has not enough free capacity',
    hint: 'lower limits.resources or choose another node',
  },
  // The script
  E_SCRIPT_SYNTAX: {
    status: 400,
    title: 'script does not parse',
    hint: 'correct the line named in where',
  },
  E_SCRIPT: {
    status: 422,
    title: 'script threw an error',
    hint: 'correct the script at the line named in where',
  },
  E_NAME: {
    status: 422,
    title: 'not a valid name',
    hint: 'use lower-case letters, digits and inner dashes, at most 63',
  },
  E_ARGUMENT: {
    status: 422,
    title: 'argument does not fit the call',
    hint: 'correct the argument named in where',
  },
  E_CAPABILITY: { status: 403, title: 'capability was not signed for', hint: 'add it to caps' },
  E_RESOURCES: {
    status: 422,
    title: 'more than limits.resources allows',
    hint: 'raise limits.resources or declare less',
  },
  E_REFERENCE: {
    status: 422,
    title: 'resource is not part of this deployment',
    hint: 'declare it in the script first',
  },
  E_NONDETERMINISM: {
    status: 422,
    title: 'script took another path on replay',
    hint: 'branch only on inputs and results of calls',
  },
  E_SECRET: {
    status: 422,
    title: 'secret cannot be opened here or is not held',
    hint: 'give it again: hypha apply FILE --secret NAME=…',
  },
  E_UNKNOWN_OUTCOME: {
    status: 500,
    title: 'a call that cannot be probed may or may not have happened',
    hint: 'look at the node; declare the call idempotent to repeat it',
  },
  E_SANDBOX: {
    status: 422,
    title: 'script broke its sandbox',
    hint: 'the script crashed its host; simplify it',
  },
  E_MEMORY: {
    status: 422,
    title: 'script exceeded limits.memoryBytes',
    hint: 'raise the limit or use less',
  },
  E_CPU: { status: 422, title: 'script exceeded limits.cpuMs', hint: 'raise the limit or do less' },
  E_DEADLINE: {
    status: 422,
    title: 'run exceeded limits.wallMs',
    hint: 'see which step took it: hypha run replay RUN; or raise the limit: --deadline',
  },
  E_TIMEOUT: {
    status: 422,
    title: 'a step or a wait took too long',
    hint: 'see what the step waits for; raise its timeout',
  },
  E_HOST_CALLS: {
    status: 422,
    title: 'script exceeded limits.hostCalls',
    hint: 'raise the limit or call less',
  },
  E_OUTPUT: {
    status: 422,
    title: 'script exceeded limits.outputBytes',
    hint: 'return and log less',
  },
  E_CANCELLED: {
    status: 409,
    title: 'cancelled',
    hint: 'what was signed stays cancelled; to run it after all sign it again: hypha apply FILE',
  },
  E_PLAN_CHANGED: {
    status: 409,
    title: 'the node has changed since the plan',
    hint: 'look at the difference in details, then plan and sign again: hypha plan FILE',
  },
  E_PLAN_PARTIAL: {
    status: 422,
    title: 'the plan cannot say all that will happen',
    hint: 'a script with exec or waitFor has no whole plan: apply it without expect',
  },
  E_TOO_LATE: {
    status: 409,
    title: 'run is past its commit point',
    hint: 'destroy or apply an older revision instead',
  },
  // SALs
  E_IMAGE: {
    status: 422,
    title: 'image cannot be had',
    hint: 'check the reference; a registry image is named by digest',
  },
  E_HEALTH: {
    status: 422,
    title: 'resource did not become healthy',
    hint: 'look at its log: hypha logs NAME',
  },
  E_SAL: { status: 500, title: 'system call failed', hint: 'see detail; hypha doctor' },
  E_SAL_UNAVAILABLE: {
    status: 422,
    title: 'this node cannot do that',
    hint: 'hypha doctor says why',
  },
  E_STORAGE: { status: 507, title: 'storage is full', hint: 'free space or grow the pool' },
  // Services
  E_NOT_FOUND: { status: 404, title: 'not found', hint: 'list what there is' },
  E_METHOD: {
    status: 405,
    title: 'method not allowed here',
    hint: 'compare method and path with /openapi.json',
  },
  E_RATE: { status: 429, title: 'too many requests', hint: 'wait and try again', retryable: true },
  E_REQUEST: { status: 400, title: 'malformed request', hint: 'compare with /openapi.json' },
  E_UNAVAILABLE: {
    status: 503,
    title: 'not available now',
    hint: 'try again; hypha status',
    retryable: true,
  },
  E_STALE_EPOCH: {
    status: 409,
    title: 'run belongs to a newer epoch',
    hint: 'stop: another runner owns the run',
  },
  E_INTERNAL: { status: 500, title: 'internal error', hint: 'see the log of the service' },
} as const satisfies Record<string, ErrorCodeInfo>;

export type ErrorCode = keyof typeof ERROR_CODES;

export function errorInfo(code: ErrorCode): ErrorCodeInfo {
  return ERROR_CODES[code];
}

export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_CODES, code);
}
