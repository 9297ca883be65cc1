import type { NodeKeys } from '@hypha/identity';
import type { GivenSecret, Journal, SealedEntry } from '@hypha/journal';
import {
  base64,
  canonicalBytes,
  fromUtf8,
  HyphaError,
  type ScriptPayload,
  utf8,
} from '@hypha/protocol';
import { findSecretRefs, type SecretFiles, type SecretOwner, type SecretRef } from '@hypha/sal';
import type { Logger } from '@hypha/service';
import { z } from 'zod';
import type { Clock } from './clock.ts';
import type { SecretFolder } from './secret-folder.ts';
import { LIMITS } from './supervisor-limits.ts';

interface VaultDeps {
  readonly keys: NodeKeys;
  readonly folder: Pick<SecretFolder, 'find' | 'write' | 'keepOnly' | 'remove'>;
  readonly clock: Clock;
  readonly log: Logger;
  /** How old the sealing key may get, milliseconds. */
  readonly sealKeyAgeMs: number;
}

/** What the node keeps of a value, sealed to itself: with its place, so that rows cannot change theirs. */
const StoredContent = z.tuple([z.string(), z.string(), z.string(), z.string()]);

/**
 * The one place where secrets are opened (G9): envelopes' boxes at admission, the node's own when a container
 * needs the value. Everything else has names and versions.
 *
 * V1  A value is in a journal only in a box, and plaintext only in the secrets folder, for as long as a record
 *     names it.
 * V2  The previous sealing key goes once nothing is sealed to it: no box of ours, and no envelope that could still
 *     be valid.
 */
export class SecretVault implements SecretFiles {
  readonly #deps: VaultDeps;
  #journal: Journal | undefined;
  /** Files and boxes change in turns, or one would be removed while it is handed out. */
  #turn: Promise<unknown> = Promise.resolve();
  #isGarbageDue = true;
  #tendedAtMs = Number.NEGATIVE_INFINITY;

  constructor(deps: VaultDeps) {
    this.#deps = deps;
  }

  /** SALs, which ask for values, are there before the journal is. */
  attach(journal: Journal): void {
    this.#journal = journal;
    journal.subscribe((_entry, events) => {
      if (events.some(({ body }) => body.type === 'finished')) this.#isGarbageDue = true;
    });
  }

  /**
   * What an envelope brings for this node, as the journal keeps it. Nothing when it has no box for it: then the
   * call that uses a secret fails.
   * @throws HyphaError `E_SECRET` when the box does not open, or was sealed for something else
   */
  take(payload: ScriptPayload): GivenSecret[] {
    const { keys } = this.#deps;
    const { realm, deployment, id } = payload;
    const box = payload.secrets[keys.nodeId];
    if (box === undefined) return [];
    const values = keys.sealKeys.open(box, { realm, node: keys.nodeId, id });
    return Object.entries(values).map(([name, value]) => {
      if (value === null) return { name, version: 'kept' };
      const version = keys.versions.versionOf({ realm, deployment, name, value });
      const content = canonicalBytes([realm, deployment, name, value]);
      try {
        const sealedTo = base64(keys.sealKeys.current);
        return { name, version, box: keys.sealKeys.sealOwn(content), sealedTo };
      } finally {
        content.fill(0);
      }
    });
  }

  async provide(
    owner: SecretOwner,
    refs: readonly SecretRef[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, string>> {
    return await this.#inTurn(async () => {
      const files = new Map<string, string>();
      for (const ref of refs) {
        if (!files.has(ref.version))
          files.set(ref.version, await this.#provideOne(owner, ref, signal));
      }
      return files;
    });
  }

  /** Drops what nothing needs any more and changes keys when it is time. Cheap when there is nothing; never rejects. */
  async sweep(): Promise<void> {
    const { clock, log } = this.#deps;
    const isDue = clock.monotonicMs() - this.#tendedAtMs >= LIMITS.secretsTendMs;
    if (!isDue && !this.#isGarbageDue) return;
    this.#isGarbageDue = false;
    this.#tendedAtMs = clock.monotonicMs();
    try {
      await this.#inTurn(async () => {
        await this.#collect();
        await this.#tendKeys();
      });
    } catch (err) {
      log.error({ err }, 'secrets not tended');
    }
  }

  /**
   * Finishes what is under way. With `stop` no plaintext stays on the machine: call once no container runs.
   * Never rejects.
   */
  async close(onStop: 'keep' | 'stop'): Promise<void> {
    const { folder, log } = this.#deps;
    try {
      await this.#inTurn(async () => {
        if (onStop === 'stop') await folder.remove(AbortSignal.timeout(LIMITS.haltMsMax));
      });
    } catch (err) {
      log.error({ err, alarm: true }, 'plaintext of secrets stays in memory');
    }
  }

  async #provideOne(owner: SecretOwner, ref: SecretRef, signal: AbortSignal): Promise<string> {
    const { folder } = this.#deps;
    const { realm, deployment } = owner;
    const entry = await this.#openedJournal.secrets.find({ realm, deployment }, ref);
    if (entry === undefined) {
      throw new HyphaError(
        'E_SECRET',
        `${realm}/${deployment} has no such value of secret ${ref.secret} on this node`,
      );
    }
    const kept = await folder.find(entry.version);
    if (kept !== undefined) return kept;
    const bytes = this.#openEntry(entry);
    try {
      return await folder.write(entry.version, bytes, signal);
    } finally {
      bytes.fill(0);
    }
  }

  async #collect(): Promise<void> {
    const { folder, log } = this.#deps;
    const { secrets, records } = this.#openedJournal;
    const dropped = await secrets.collect();
    if (dropped > 0) log.info({ dropped }, 'unused values of secrets dropped');
    const specs = [...records.listRecords(), ...records.listProvisional()].map(({ spec }) => spec);
    const versions = specs.flatMap((spec) => findSecretRefs(spec).map(({ version }) => version));
    await folder.keepOnly(new Set(versions));
  }

  /** One step a time; what a crash interrupts is found here again. */
  async #tendKeys(): Promise<void> {
    const { keys, clock, log, sealKeyAgeMs } = this.#deps;
    const { sealKeys } = keys;
    const nowMs = clock.nowMs();
    if (sealKeys.previous === undefined && nowMs - sealKeys.madeAtMs >= sealKeyAgeMs) {
      await sealKeys.rotateSealKey();
      log.info('sealing key changed');
    }
    await this.#reseal();
    const { publishedAtMs } = sealKeys;
    if (sealKeys.previous === undefined || publishedAtMs === null) return;
    if (nowMs - publishedAtMs < LIMITS.sealKeyOverlapMs) return;
    await sealKeys.destroyPrevious();
    log.info('previous sealing key destroyed');
  }

  async #reseal(): Promise<void> {
    const { keys, log } = this.#deps;
    const { secrets } = this.#openedJournal;
    const sealedTo = base64(keys.sealKeys.current);
    for (;;) {
      const entries = await secrets.listSealedElsewhere(sealedTo, LIMITS.resealsAtOnce);
      if (entries.length === 0) return;
      await secrets.reseal(
        entries.map((entry) => ({ ...entry, ...this.#sealAgain(entry, sealedTo) })),
      );
      log.info({ count: entries.length }, 'values of secrets sealed to the new key');
    }
  }

  #sealAgain(entry: SealedEntry, sealedTo: string): { box: string; sealedTo: string } {
    const { sealKeys } = this.#deps.keys;
    const content = sealKeys.openOwn(entry.box);
    try {
      return { box: sealKeys.sealOwn(content), sealedTo };
    } finally {
      content.fill(0);
    }
  }

  /** The caller overwrites what it gets. */
  #openEntry(entry: SealedEntry): Uint8Array {
    const content = this.#deps.keys.sealKeys.openOwn(entry.box);
    try {
      const [realm, deployment, name, value] = readStored(content);
      const isOwn = realm === entry.realm && deployment === entry.deployment && name === entry.name;
      if (isOwn) return utf8(value);
    } finally {
      content.fill(0);
    }
    throw new HyphaError('E_SECRET', `the stored box of secret ${entry.name} is another's`);
  }

  get #openedJournal(): Journal {
    if (this.#journal !== undefined) return this.#journal;
    throw new HyphaError('E_UNAVAILABLE', 'this supervisor has not opened its journal yet');
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }
}

function readStored(content: Uint8Array): z.infer<typeof StoredContent> {
  try {
    return StoredContent.parse(JSON.parse(fromUtf8(content)));
  } catch {
    // Without the cause, which may quote the value.
    throw new HyphaError('E_SECRET', 'cannot read a stored secret');
  }
}
