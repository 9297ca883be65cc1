/**
 * Every bound of the wire formats, in one place. Exceeding one is an error the sender sees, never a
 * silent drop. Units end the names.
 */
export const LIMITS = {
  /** Decoded script payload, bytes (design §8). */
  payloadBytesMax: 256 * 1024,
  /** HTTP body of a submission: payload in base64 plus envelope, stapled updates and checkpoint. */
  submissionBytesMax: 1024 * 1024,
  /** Any other HTTP body. */
  bodyBytesMax: 4 * 1024 * 1024,
  /** `input` as canonical JSON, bytes (design §8). */
  inputBytesMax: 16 * 1024,
  /** `message`, bytes of UTF-8 (design §8). */
  messageBytesMax: 256,
  /** Candidates in `aud.nodes` (design §8). */
  audienceNodesMax: 1000,
  /** `exp - nbf`, seconds (design §8). */
  lifetimeSecondsMax: 86_400,
  lifetimeSecondsDefault: 900,
  /** Tolerated clock difference at `nbf` and `iat`; none at `exp`. */
  skewSeconds: 60,
  signaturesMax: 8,
  /** Age of the newest checkpoint when new work is admitted, seconds: bounds of the policy (design §8). */
  checkpointAgeSecondsMin: 60,
  checkpointAgeSecondsDefault: 900,
  checkpointAgeSecondsMax: 86_400,
  /** A checkpoint with the lines of witnesses: characters, and signature lines. */
  checkpointCharsMax: 16_384,
  checkpointSignaturesMax: 16,
  /** `exp - iat` of an admission by join token (design §8). */
  joinTokenSecondsMax: 3600,
  /** Authority updates stapled to one submission or returned in one page. */
  authorityUpdatesMax: 1000,
  /** Nesting of any JSON we read. */
  jsonDepthMax: 64,
  /** Names of realms, deployments, resources. */
  nameCharsMax: 63,
  listItemsMax: 500,
  listItemsDefault: 100,
  /** One journal event as canonical JSON, bytes. */
  journalEventBytesMax: 512 * 1024,
  /** Secrets a script may declare. */
  secretsMax: 64,
  capsMax: 32,
  deleteDataMax: 256,
  /** RFC 9421 `expires - created`, seconds (design §9). */
  requestLifetimeSecondsMax: 60,
} as const;
