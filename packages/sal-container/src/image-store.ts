/**
 * Images of the node, one read-only subvolume `images/<sha256>` each, with the unpacked `rootfs` and
 * `image.json`.
 *
 * I1  A subvolume under its final name is whole: it is filled as `images/.tmp-…`, made read-only and
 *     renamed last. A crash leaves a `.tmp-…` that the next pull of that image throws away.
 * I2  No image is pulled twice at a time: calls of one process share, processes wait for each other.
 */
import { mkdir, open, readdir, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import { type ImageReference, parseImageReference, writeRecord } from '@hypha/sal';
import { z } from 'zod';
import type { ContainerHost } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { ProcessUser, resolveImageUser } from './image-user.ts';
import { type Descriptor, indexOf, readImageDefaults, resolveTag } from './oci-layout.ts';
import { tryLock, waitForLock } from './pull-lock.ts';
import { SharedWork } from './shared-work.ts';
import { pullFailure, skopeoCopy } from './skopeo.ts';

const SHA256 = /^[0-9a-f]{64}$/;
const DRAFT = /^\.tmp-([0-9a-f]{64})-\d+$/;

/** `image.json` of an image, and of every instance made from it. */
export const ImageRecord = z.strictObject({
  v: z.literal(1),
  /** Of the manifest; for a registry what the reference pins, which may be an index of manifests. */
  sha256: z.string().regex(SHA256),
  entrypoint: z.array(z.string()),
  command: z.array(z.string()),
  /** `NAME=value`. */
  env: z.array(z.string()),
  user: ProcessUser,
  workdir: z.string(),
  /** Empty: SIGTERM. */
  stopSignal: z.string(),
});
export type ImageRecord = z.infer<typeof ImageRecord>;

/** An image as a reference names it now. */
export interface ResolvedImage {
  readonly text: string;
  readonly reference: ImageReference;
  readonly sha256: string;
}

/** Tag within the layouts that the store makes for itself. */
const OWN_TAG = 'image';
/** Suffix of the empty file whose time says when an image was last asked for. */
const USED = '.used';

export class ImageStore {
  readonly #host: ContainerHost;
  readonly #pulls = new SharedWork<void>();

  constructor(host: ContainerHost) {
    this.#host = host;
  }

  async has(sha256: string): Promise<boolean> {
    return this.#host.pool.isSubvolume(imagePath(sha256));
  }

  /** Reads a layout's tag; asks no registry, since its reference is the digest. Throws `E_IMAGE`. */
  async resolve(text: string): Promise<ResolvedImage> {
    const reference = parseImageReference(text);
    const { digest } =
      reference.source === 'registry'
        ? reference
        : await resolveTag(reference.folder, reference.tag);
    return { text, reference, sha256: digest.slice('sha256:'.length) };
  }

  /**
   * Has the image in the pool. Idempotent, and bounded in time. Throws `E_IMAGE` (retryable when only
   * the network stood in the way) or `E_STORAGE`.
   */
  async ensure(image: ResolvedImage, signal: AbortSignal): Promise<void> {
    if (!(await this.has(image.sha256))) {
      await this.#pulls.join(image.sha256, signal, (shared) => this.#pull(image, shared));
    }
    await this.#touch(image.sha256);
  }

  /** Removes images that nobody asked for lately and no instance uses, and what broken pulls left. */
  async collect(listUsed: () => Promise<ReadonlySet<string>>, signal: AbortSignal): Promise<void> {
    const forgotten = await this.#listForgotten();
    const used = forgotten.length === 0 ? new Set() : await listUsed();
    for (const { name, sha256 } of forgotten) {
      if (name === sha256 && used.has(sha256)) continue;
      const lock = await tryLock(this.#lockPath(sha256));
      if (lock === undefined) continue;
      try {
        await this.#host.pool.deleteSubvolume(`images/${name}`, signal);
        await rm(this.#usedPath(sha256), { force: true });
      } finally {
        lock.release();
      }
    }
  }

  async #pull(image: ResolvedImage, shared: AbortSignal): Promise<void> {
    const { pool } = this.#host;
    const deadline = AbortSignal.timeout(CONTAINER_LIMITS.pullMsMax);
    const signal = AbortSignal.any([shared, deadline]);
    try {
      const lock = await waitForLock(this.#lockPath(image.sha256), signal);
      try {
        if (await pool.isSubvolume(imagePath(image.sha256))) return;
        await this.#import(image, signal);
      } finally {
        lock.release();
      }
    } catch (cause) {
      if (!deadline.aborted || shared.aborted) throw cause;
      const within = `${CONTAINER_LIMITS.pullMsMax / 1000} s`;
      throw new HyphaError('E_IMAGE', `cannot get image ${image.text} within ${within}`, {
        cause,
        retryable: true,
      });
    }
  }

  async #import(image: ResolvedImage, signal: AbortSignal): Promise<void> {
    const { pool, effects } = this.#host;
    for (const name of await this.#listNames()) {
      if (name.startsWith(`.tmp-${image.sha256}-`)) {
        await pool.deleteSubvolume(`images/${name}`, signal);
      }
    }
    // Named after us: a tool that outlived a dead process must not write into what we fill.
    const draft = `images/.tmp-${image.sha256}-${process.pid}`;
    await pool.ensureRoom(0);
    await pool.createSubvolume(draft, signal);
    try {
      const folder = pool.resolve(draft);
      const record = await this.#fill(folder, image, signal);
      await effects.change(() => writeRecord(join(folder, 'image.json'), record));
      await pool.setReadonly(draft, true, signal);
      await pool.rename(draft, imagePath(image.sha256));
    } catch (error) {
      // Only to have the space back at once: the next pull begins with the same call.
      await pool.deleteSubvolume(draft, AbortSignal.timeout(30_000)).catch(() => undefined);
      throw error;
    }
  }

  async #fill(folder: string, image: ResolvedImage, signal: AbortSignal): Promise<ImageRecord> {
    const { effects, tools } = this.#host;
    const layout = join(folder, 'layout');
    const rootfs = join(folder, 'rootfs');
    const manifest = await this.#fetch(layout, image, signal);
    const { user, ...defaults } = await readImageDefaults(layout, manifest);
    await effects
      .run({
        tool: tools.umoci,
        argv: ['--log=error', 'raw', 'unpack', `--image=${layout}:${OWN_TAG}`, rootfs],
        purpose: `unpack image ${image.text}`,
        timeoutMs: CONTAINER_LIMITS.pullMsMax,
        signal,
      })
      .catch((cause: unknown) => {
        throw pullFailure(cause, image.text);
      });
    await effects.change(() => rm(layout, { recursive: true }));
    const numbers = await resolveImageUser(rootfs, user);
    return {
      v: 1,
      sha256: image.sha256,
      ...defaults,
      entrypoint: [...defaults.entrypoint],
      command: [...defaults.command],
      env: [...defaults.env],
      user: numbers,
    };
  }

  /** Fills `layout` with exactly one image under `OWN_TAG`. */
  async #fetch(layout: string, image: ResolvedImage, signal: AbortSignal): Promise<Descriptor> {
    const { reference } = image;
    if (reference.source === 'registry') {
      await skopeoCopy(this.#host, reference, { layout, tag: OWN_TAG, signal });
      return resolveTag(layout, OWN_TAG);
    }
    const manifest = await resolveTag(reference.folder, reference.tag);
    if (manifest.digest !== `sha256:${image.sha256}`) {
      throw new HyphaError('E_IMAGE', `image ${image.text} changed while it was read`, {
        retryable: true,
      });
    }
    // Blobs stay where they are: only the choice of the manifest is ours.
    await this.#host.effects.change(async () => {
      await mkdir(layout);
      await symlink(join(reference.folder, 'blobs'), join(layout, 'blobs'));
      await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
      await writeFile(join(layout, 'index.json'), indexOf(manifest, OWN_TAG));
    });
    return manifest;
  }

  async #touch(sha256: string): Promise<void> {
    const path = this.#usedPath(sha256);
    const now = new Date(this.#host.nowMs());
    await open(path, 'a').then((file) => file.close());
    await utimes(path, now, now);
  }

  /** Old images and drafts; a draft that is being filled is locked. */
  async #listForgotten(): Promise<readonly { name: string; sha256: string }[]> {
    const entries = (await this.#listNames()).map((name) => {
      return { name, sha256: DRAFT.exec(name)?.[1] ?? name };
    });
    const found = await Promise.all(
      entries.map(async (entry) => {
        if (!SHA256.test(entry.sha256)) return [];
        if (entry.name !== entry.sha256) return [entry];
        const used = await stat(this.#usedPath(entry.sha256)).catch(() => undefined);
        const ageMs = this.#host.nowMs() - (used?.mtimeMs ?? 0);
        return ageMs > CONTAINER_LIMITS.imageKeepMs ? [entry] : [];
      }),
    );
    return found.flat();
  }

  async #listNames(): Promise<readonly string[]> {
    return readdir(this.#host.pool.resolve('images')).catch(() => []);
  }

  #usedPath(sha256: string): string {
    return join(this.#host.pool.resolve('images'), `${sha256}${USED}`);
  }

  #lockPath(sha256: string): string {
    return join(this.#host.pool.resolve('images'), `.lock-${sha256.slice(0, 2)}`);
  }
}

/** Below the pool. */
export function imagePath(sha256: string): string {
  return `images/${sha256}`;
}
