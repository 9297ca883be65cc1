import { createHmac, randomBytes } from 'node:crypto';
import { canonicalJson } from '@hypha/protocol';
import { findPrivateFile, writePrivateFile } from '@hypha/protocol/node';

const KEY_BYTES = 32;
/** 128 bits. */
const VERSION_CHARS = 32;

/** Where a value belongs. The same value elsewhere has another version, so none can be told from another. */
interface PlacedSecret {
  readonly realm: string;
  readonly deployment: string;
  readonly name: string;
  readonly value: string;
}

/**
 * Names values of secrets without telling them: a hash with a key that only this node has, so that records and
 * journals may hold it, and nobody can try words against it. A lost key only makes every value look changed.
 */
export class SecretVersions {
  readonly #key: Buffer;

  private constructor(key: Buffer) {
    this.#key = key;
  }

  /** Reads or makes the key: hex, 0600. Throws when the file holds something else. */
  static async open(path: string): Promise<SecretVersions> {
    const kept = await findPrivateFile(path);
    if (kept !== undefined) {
      if (!/^[0-9a-f]{64}\n$/.test(kept)) throw new TypeError('expected 32 bytes in hex');
      return new SecretVersions(Buffer.from(kept.trim(), 'hex'));
    }
    const key = randomBytes(KEY_BYTES);
    await writePrivateFile(path, `${key.toString('hex')}\n`);
    return new SecretVersions(key);
  }

  /** HMAC-SHA-256, its first 32 hex digits. */
  versionOf({ realm, deployment, name, value }: PlacedSecret): string {
    const text = canonicalJson([realm, deployment, name, value]);
    const hash = createHmac('sha256', this.#key).update(text).digest('hex');
    return hash.slice(0, VERSION_CHARS);
  }
}
