/**
 * Signed heads of the log: C2SP `tlog-checkpoint` in a C2SP `signed-note`. The body is
 *
 *     hypha/<genesis hash>
 *     <entries>
 *     <root, base64>
 *     authority <seq> <head, hex>
 *
 * The last line is ours: it binds the newest authority update among those entries, so that a checkpoint
 * that is fresh cannot hide a revocation. The ledger's key signs twice: the note itself, and as
 * `cosignature/v1`, which carries the time. Lines of other keys (witnesses) are left alone.
 */
import type { Signer, Verifier } from './crypto-port.ts';
import { findSignatureFault } from './ed25519.ts';
import { base64, concatBytes, fromBase64, fromHex, hex, utf8 } from './encoding.ts';
import { HyphaError } from './hypha-error.ts';
import { LIMITS } from './limits.ts';
import { verifyConsistency } from './merkle.ts';

/** A checkpoint whose signatures held. */
export interface Checkpoint {
  /** `checkpointOrigin` of the fleet: name of the log and of the key. */
  readonly origin: string;
  /** Entries, at least 1: the genesis. */
  readonly size: number;
  /** Merkle root over them, lower-case hex. */
  readonly root: string;
  /** Newest authority update among them; `head` is its envelope digest. */
  readonly authority: { readonly seq: number; readonly head: string };
  /** When the ledger said so, epoch seconds by its clock. */
  readonly time: number;
  /** The exact text, which is what is kept as evidence. */
  readonly note: string;
}

/** Signature algorithms of `signed-note`. */
const ED25519 = 0x01;
const COSIGNATURE = 0x04;
const KEY_HASH_BYTES = 4;

/** What a fleet's log is called. Different fleets cannot show each other's checkpoints. */
export function checkpointOrigin(genesisHash: string): string {
  return `hypha/${genesisHash}`;
}

/** The note. Its time is whole seconds; `root` and `authority.head` are lower-case hex. */
export function signCheckpoint(
  verifier: Verifier,
  head: Omit<Checkpoint, 'note'>,
  signer: Signer,
): string {
  const { origin, time } = head;
  const body = bodyOf(head);
  const line = (algorithm: number, ...signature: Uint8Array[]) => {
    const id = keyHash(verifier, { name: origin, algorithm, publicKey: signer.publicKey });
    return `\u2014 ${origin} ${base64(concatBytes(id, ...signature))}\n`;
  };
  const signature = line(ED25519, signer.sign(utf8(body)));
  const stamp = new Uint8Array(8);
  new DataView(stamp.buffer).setBigUint64(0, BigInt(time));
  const cosignature = line(COSIGNATURE, stamp, signer.sign(cosignedBytes(body, time)));
  return `${body}\n${signature}${cosignature}`;
}

/**
 * Reads a note and checks both signatures of the ledger's key.
 * @throws HyphaError `E_CHECKPOINT` when it is malformed, of another log, or not signed by this key
 */
export function verifyCheckpoint(
  verifier: Verifier,
  note: string,
  { origin, publicKey }: { readonly origin: string; readonly publicKey: Uint8Array },
): Checkpoint {
  const { body, signatures } = readNote(note);
  const find = (algorithm: number) => {
    const id = hex(keyHash(verifier, { name: origin, algorithm, publicKey }));
    const found = signatures.find((line) => line.name === origin && line.id === id);
    if (found === undefined) throw refusal(`it has no signature of the key of ${origin}`);
    return found.bytes;
  };
  const check = (message: Uint8Array, signature: Uint8Array) => {
    const fault = findSignatureFault(verifier, { publicKey, message, signature });
    if (fault !== undefined) throw refusal(`a signature of ${origin} does not hold (${fault})`);
  };
  check(utf8(body), find(ED25519));
  const cosignature = find(COSIGNATURE);
  if (cosignature.length !== 72) throw refusal('its cosignature has not 72 bytes');
  const time = readTime(cosignature);
  check(cosignedBytes(body, time), cosignature.subarray(8));
  const head = readBody(body);
  if (head.origin !== origin) throw refusal(`it is of ${head.origin}, not of ${origin}`);
  return { ...head, time, note };
}

/**
 * Passes when `next` may follow `pinned`: the same tree, or one that extends it.
 * @param proof consistency proof from `pinned.size` to `next.size`, hex; empty for the same size
 * @throws HyphaError `E_LOG_FORK` with both notes in `details`, which anyone can check
 */
export function checkExtends(
  verifier: Verifier,
  pinned: Checkpoint,
  next: Checkpoint,
  proof: readonly string[],
): void {
  const fork = (reason: string, cause?: unknown) =>
    new HyphaError(
      'E_LOG_FORK',
      `the log of ${next.size} entries does not follow the pinned one of ${pinned.size}: ${reason}`,
      { cause, details: { pinned: pinned.note, other: next.note } },
    );
  const [before, after] = [pinned.authority, next.authority];
  if (next.size < pinned.size) throw fork('entries are missing');
  if (next.size === pinned.size && next.root !== pinned.root) throw fork('another root');
  if (after.seq < before.seq) throw fork(`authority update ${before.seq} is missing`);
  const sameAuthority = next.size === pinned.size || after.seq === before.seq;
  if (sameAuthority && (after.seq !== before.seq || after.head !== before.head))
    throw fork('another authority');
  try {
    verifyConsistency(verifier, {
      from: pinned.size,
      to: next.size,
      fromRoot: fromHex(pinned.root),
      toRoot: fromHex(next.root),
      proof: proof.map(fromHex),
    });
  } catch (cause) {
    throw fork('the proof does not hold', cause);
  }
}

function bodyOf({ origin, size, root, authority }: Omit<Checkpoint, 'note' | 'time'>): string {
  return `${origin}\n${size}\n${base64(fromHex(root))}\nauthority ${authority.seq} ${authority.head}\n`;
}

function readBody(body: string): Omit<Checkpoint, 'note' | 'time'> {
  const [origin = '', size = '', root = '', extension = ''] = body.split('\n');
  const [, seq = '', head = ''] = /^authority (\d{1,16}) ([0-9a-f]{64})$/.exec(extension) ?? [];
  let rootBytes = new Uint8Array();
  try {
    rootBytes = new Uint8Array(fromBase64(root));
  } catch {
    throw refusal('its root is not base64');
  }
  const read = {
    origin,
    size: Number(size),
    root: hex(rootBytes),
    authority: { seq: Number(seq), head },
  };
  // Spelled again it has to be the same: no leading zero, no loose base64, no further line.
  const sound =
    rootBytes.length === 32 &&
    Number.isSafeInteger(read.size) &&
    read.size > 0 &&
    Number.isSafeInteger(read.authority.seq) &&
    bodyOf(read) === body;
  if (!sound) throw refusal('its body is not origin, size, root and authority');
  return read;
}

interface SignatureLine {
  readonly name: string;
  /** Key hash, hex. */
  readonly id: string;
  readonly bytes: Uint8Array;
}

/** C2SP signed-note: text, a blank line, signature lines. */
function readNote(note: string): { body: string; signatures: readonly SignatureLine[] } {
  const { checkpointCharsMax, checkpointSignaturesMax } = LIMITS;
  if (note.length > checkpointCharsMax)
    throw refusal(`it has more than ${checkpointCharsMax} characters`);
  if (!note.isWellFormed() || hasControls(note)) throw refusal('it holds control characters');
  const end = note.lastIndexOf('\n\n');
  if (end < 0 || !note.endsWith('\n')) throw refusal('it is not text, a blank line and signatures');
  const lines = note.slice(end + 2, -1).split('\n');
  if (lines.length > checkpointSignaturesMax)
    throw refusal(`it has more than ${checkpointSignaturesMax} signatures`);
  const signatures = lines.map(readSignatureLine);
  const keys = new Set(signatures.map(({ name, id }) => `${id} ${name}`));
  if (keys.size < signatures.length) throw refusal('a key signed it twice');
  return { body: note.slice(0, end + 1), signatures };
}

function readSignatureLine(line: string): SignatureLine {
  // A key name has no space and no plus sign.
  const [, name, text] = /^\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})$/u.exec(line) ?? [];
  if (name === undefined || text === undefined) throw refusal('a signature line is malformed');
  let bytes: Uint8Array;
  try {
    bytes = fromBase64(text);
  } catch {
    throw refusal('a signature is not base64');
  }
  if (base64(bytes) !== text || bytes.length <= KEY_HASH_BYTES)
    throw refusal('a signature is not base64 of a key hash and a signature');
  return {
    name,
    id: hex(bytes.subarray(0, KEY_HASH_BYTES)),
    bytes: bytes.slice(KEY_HASH_BYTES),
  };
}

function hasControls(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if ((code < 0x20 && code !== 0x0a) || code === 0x7f) return true;
  }
  return false;
}

/** First four bytes of SHA-256(name ‖ LF ‖ algorithm ‖ public key): what a line says of its key. */
function keyHash(
  verifier: Verifier,
  key: { readonly name: string; readonly algorithm: number; readonly publicKey: Uint8Array },
): Uint8Array {
  const named = concatBytes(utf8(`${key.name}\n`), Uint8Array.of(key.algorithm), key.publicKey);
  return verifier.sha256(named).subarray(0, KEY_HASH_BYTES);
}

/** C2SP cosignature/v1: the time and the whole body with its last newline. */
function cosignedBytes(body: string, time: number): Uint8Array {
  return utf8(`cosignature/v1\ntime ${time}\n${body}`);
}

function readTime(cosignature: Uint8Array): number {
  const { buffer, byteOffset } = cosignature;
  const time = Number(new DataView(buffer, byteOffset).getBigUint64(0));
  // C2SP: 0 says nothing about the time.
  if (!Number.isSafeInteger(time) || time === 0) throw refusal('its time is out of range');
  return time;
}

function refusal(reason: string): HyphaError {
  return new HyphaError('E_CHECKPOINT', `cannot believe the checkpoint: ${reason}`);
}
