import type { Generated } from 'kysely';

/** Tables of one node's journal. JSON is TEXT; times are epoch milliseconds unless the name says seconds. */
export interface JournalTables {
  meta: MetaTable;
  run: RunTable;
  event: EventTable;
  replay: ReplayTable;
  mark: MarkTable;
  record: RecordTable;
  provisional: ProvisionalTable;
  reservation: ReservationTable;
  receipt: ReceiptTable;
  cursor: CursorTable;
  secret: SecretTable;
  runSecret: RunSecretTable;
  tombstone: TombstoneTable;
  plan: PlanTable;
  undone: UndoneTable;
}

/** One row. `receiptSeq` and `receiptDigest` are the end of the node's receipt chain. */
interface MetaTable {
  id: 1;
  createdAt: number;
  /** 1 once `createdAt` was compared with a clock that can be trusted. */
  dated: number;
  /** What expired before this was forgotten, epoch seconds. */
  forgottenSeconds: number;
  /** Greatest `forgetAtSeconds` of the cancels that were forgotten; 0 before the first. */
  forgottenCancelSeconds: number;
  receiptSeq: number;
  receiptDigest: string | null;
}

interface RunTable {
  /** Order of acceptance on this node. */
  position: Generated<number>;
  run: string;
  digest: string;
  revision: string;
  realm: string;
  deployment: string;
  generation: number;
  mode: string;
  envelope: string;
  /** `http`: the coordinator may not know of it. */
  source: string;
  acceptedAt: number;
  expSeconds: number;
  /** Newest epoch; queue jobs name it. */
  epoch: number;
  /** Runner that owns the epoch; null while nobody has claimed it. */
  holder: string | null;
  /** Boot id under which the newest epoch was claimed; null while no runner had the run. */
  bootId: string | null;
  seq: number;
  head: string;
  state: string;
  steps: number;
  startedAt: number | null;
  endedAt: number | null;
  problem: string | null;
  simulated: number;
  onFailure: string;
  /** JSON list of volume names. */
  deleteData: string;
  message: string;
  /** What the coordinator is to be told: every event, and the receipt as one more. */
  due: number;
  /** How much of that it has confirmed. */
  told: number;
  /** JSON list: who signed it. */
  keyids: string;
  /** When its cancel was accepted; null while there is none. */
  cancelRequestedAt: number | null;
  /** It only waits until then, owned by nobody; null otherwise. */
  wakeAt: number | null;
}

interface EventTable {
  run: string;
  seq: number;
  body: string;
}

/** What may not come back under another digest. `value`: an id, or `<keyid> <nonce>`. */
interface ReplayTable {
  value: string;
  digest: string;
  keepUntilSeconds: number;
}

/** Highest generation ever admitted; survives destroy (design §8). */
interface MarkTable {
  realm: string;
  deployment: string;
  generation: number;
  digest: string;
}

/** The desired record of design §10, as commits left it. */
interface RecordTable {
  rid: string;
  realm: string;
  deployment: string;
  kind: string;
  name: string;
  spec: string;
  specHash: string;
  status: string;
  createdBy: string;
  lastOp: string;
  /** For `removing`: its data was given up by a signed `deleteData`. */
  deleteData: number;
  /** 1 until the reconciler has dropped what a replace had parked. */
  unsettled: number;
  /** Grows with every change, so that a slow reader never drops a newer one. */
  version: number;
}

/** What steps of uncommitted runs declared. The highest (position, step) of a rid is in force. */
interface ProvisionalTable {
  run: string;
  position: number;
  step: number;
  rid: string;
  realm: string;
  deployment: string;
  kind: string;
  name: string;
  spec: string;
  specHash: string;
  action: string;
  /** 1 once its outcome was recorded. */
  settled: number;
}

/** `source`: `committed`, or the unfinished run whose ceiling it is. */
interface ReservationTable {
  realm: string;
  deployment: string;
  source: string;
  milliCpus: number;
  memoryBytes: number;
  storageBytes: number;
}

interface ReceiptTable {
  seq: number;
  run: string;
  digest: string;
  envelope: string;
}

/** How far a destination has confirmed one thing it is told in order. */
interface CursorTable {
  destination: string;
  topic: string;
  seq: number;
}

/** Values of secrets, sealed to the node's own key. */
interface SecretTable {
  realm: string;
  deployment: string;
  name: string;
  /** Keyed hash of the value. */
  version: string;
  box: string;
  /** Base64 of the public key it is sealed to. */
  sealedTo: string;
  /** When this node first had the value. */
  createdAt: number;
}

/** Which versions a run was given; the same in every epoch. */
interface RunSecretTable {
  run: string;
  name: string;
  version: string;
}

/** An accepted cancel of work that is not here yet. */
interface TombstoneTable {
  /** Digest of the script envelope it ends. */
  target: string;
  realm: string;
  /** JSON list, sorted: who signed the cancel. */
  keyids: string;
  /** 1 when they may cancel what others signed. */
  mayCancelAny: number;
  requestedAt: number;
  /** What `Cancellation` says of it. */
  forgetAtSeconds: number;
}

/** What a plan run found, by its hash: an apply that expects it shows what changed since. */
interface PlanTable {
  run: string;
  hash: string;
  document: string;
}

/** Steps of kept runs that a later task has undone. */
interface UndoneTable {
  run: string;
  step: number;
}
