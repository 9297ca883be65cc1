/**
 * The node's sealing keys: what secrets are sealed to. One file, replaced as a whole: PKCS#8 PEM of the current
 * key and, after a rotation, of the one before, each below lines that say since when. A crash leaves both
 * as they were or both as they are to be, so no box that was sealed to either is ever lost.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import {
  HyphaError,
  openBytes,
  openSecrets,
  type SecretContext,
  type SecretValues,
  sealBytes,
} from '@hypha/protocol';
import { findPrivateFile, writePrivateFile } from '@hypha/protocol/node';

interface SealKey {
  readonly pem: string;
  readonly publicKey: Uint8Array;
  /** Overwritten once the key is destroyed. */
  readonly secretKey: Uint8Array;
  /** Epoch milliseconds. */
  readonly madeAtMs: number;
  /** When the ledger had an enrolment that names it; null before. */
  readonly publishedAtMs: number | null;
}

const KEY_BYTES = 32;
const BLOCK =
  /([a-z\d: \n]*)(-----BEGIN PRIVATE KEY-----\n[\w+/=\n]+-----END PRIVATE KEY-----\n?)/gy;

export class SealKeys {
  readonly #path: string;
  readonly #nowMs: () => number;
  #current: SealKey;
  #previous: SealKey | undefined;
  /** Changes take turns. */
  #change: Promise<void> = Promise.resolve();

  private constructor(
    path: string,
    nowMs: () => number,
    keys: readonly [SealKey, (SealKey | undefined)?],
  ) {
    this.#path = path;
    this.#nowMs = nowMs;
    [this.#current, this.#previous] = keys;
  }

  /** Undefined when there is no file. Throws when it holds no such keys. */
  static async find(path: string, nowMs: () => number): Promise<SealKeys | undefined> {
    const text = await findPrivateFile(path);
    return text === undefined ? undefined : new SealKeys(path, nowMs, parseKeys(text, nowMs()));
  }

  /** The first key of a new node. On disk when it resolves. */
  static async create(path: string, nowMs: () => number): Promise<SealKeys> {
    const keys = new SealKeys(path, nowMs, [makeKey(nowMs())]);
    await keys.#save(keys.#current, undefined);
    return keys;
  }

  /** Raw X25519 public key that secrets are to be sealed to: what an enrolment names. */
  get current(): Uint8Array {
    return this.#current.publicKey;
  }

  /** The key before the last rotation, for as long as boxes sealed to it are opened. */
  get previous(): Uint8Array | undefined {
    return this.#previous?.publicKey;
  }

  get madeAtMs(): number {
    return this.#current.madeAtMs;
  }

  /** Null until `notePublished`: then the ledger has to be told, or others go on sealing to the key before. */
  get publishedAtMs(): number | null {
    return this.#current.publishedAtMs;
  }

  /** What is in an envelope's box for this node. Throws `E_SECRET`. */
  open(box: string, context: SecretContext): SecretValues {
    return openSecrets(box, { context, secretKeys: this.#secretKeys });
  }

  /** What the node keeps for itself, sealed to its current key. */
  sealOwn(bytes: Uint8Array): string {
    const random = (count: number) => new Uint8Array(randomBytes(count));
    return sealBytes(bytes, { sealKey: this.current, randomBytes: random });
  }

  /** Throws `E_SECRET`. The caller overwrites what it gets. */
  openOwn(box: string): Uint8Array {
    return openBytes(box, this.#secretKeys);
  }

  /**
   * Makes a new current key; the one before stays as `previous`. On disk when it resolves. The ledger is to be
   * told: enrol again with the new key, then `notePublished`.
   * @throws HyphaError `E_CONFLICT` while there is a previous one: boxes may still come for it
   */
  rotateSealKey(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#previous !== undefined) {
        throw new HyphaError('E_CONFLICT', 'cannot change the sealing key twice in a row', {
          hint: 'the key before goes a day after the ledger has the new one',
        });
      }
      await this.#save(makeKey(this.#nowMs()), this.#current);
    });
  }

  /** The ledger has an enrolment that names this key. Nothing when it is not the current one any more. */
  notePublished(publicKey: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      const { publishedAtMs } = this.#current;
      if (publishedAtMs !== null || !Buffer.from(publicKey).equals(this.current)) return;
      await this.#save({ ...this.#current, publishedAtMs: this.#nowMs() }, this.#previous);
    });
  }

  /** What was sealed to the previous key cannot be opened by anybody from here on. */
  destroyPrevious(): Promise<void> {
    return this.#inTurn(async () => {
      const gone = this.#previous;
      if (gone === undefined) return;
      await this.#save(this.#current, undefined);
      gone.secretKey.fill(0);
    });
  }

  get #secretKeys(): Uint8Array[] {
    const keys = [this.#current, this.#previous];
    return keys.flatMap((key) => (key === undefined ? [] : [key.secretKey]));
  }

  async #save(current: SealKey, previous: SealKey | undefined): Promise<void> {
    const keys = previous === undefined ? [current] : [current, previous];
    await writePrivateFile(this.#path, keys.map(formatKey).join(''));
    this.#current = current;
    this.#previous = previous;
  }

  #inTurn(change: () => Promise<void>): Promise<void> {
    const turn = this.#change.then(change);
    this.#change = turn.catch(() => undefined);
    return turn;
  }
}

function makeKey(madeAtMs: number): SealKey {
  const { privateKey } = generateKeyPairSync('x25519');
  const pem = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
  return readKey(pem, { madeAtMs, publishedAtMs: null });
}

function readKey(pem: string, since: Pick<SealKey, 'madeAtMs' | 'publishedAtMs'>): SealKey {
  const key = createPrivateKey(pem);
  if (key.asymmetricKeyType !== 'x25519') throw new TypeError(`${key.asymmetricKeyType} key`);
  const secret = key.export({ format: 'der', type: 'pkcs8' });
  const open = createPublicKey(key).export({ format: 'der', type: 'spki' });
  return {
    pem,
    publicKey: new Uint8Array(open.subarray(-KEY_BYTES)),
    secretKey: new Uint8Array(secret.subarray(-KEY_BYTES)),
    ...since,
  };
}

function formatKey({ pem, madeAtMs, publishedAtMs }: SealKey): string {
  const published = publishedAtMs === null ? '' : `published: ${publishedAtMs}\n`;
  return `made: ${madeAtMs}\n${published}${pem}`;
}

/** @param nowMs for a file that does not say since when */
function parseKeys(text: string, nowMs: number): readonly [SealKey, (SealKey | undefined)?] {
  const blocks = [...text.matchAll(BLOCK)];
  const length = blocks.reduce((sum, [block]) => sum + block.length, 0);
  const [current, previous, ...more] = blocks.map(([, head = '', pem = '']) => {
    const timeOf = (name: string) => new RegExp(`^${name}: (\\d{1,16})$`, 'm').exec(head)?.[1];
    const [made, published] = [timeOf('made'), timeOf('published')];
    return readKey(pem, {
      madeAtMs: made === undefined ? nowMs : Number(made),
      publishedAtMs: published === undefined ? null : Number(published),
    });
  });
  if (current === undefined || more.length > 0 || length !== text.length) {
    throw new TypeError('expected one sealing key, or two');
  }
  return [current, previous];
}
