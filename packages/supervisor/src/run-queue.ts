import type { Logger } from '@hypha/service';
import { Queue, QueueKeys } from 'bullmq';
import { Redis } from 'ioredis';
import type { RedisUser } from './redis-users.ts';

/** What a job says; everything else is asked of the journal. */
export interface RunJob {
  readonly run: string;
  readonly epoch: number;
}

export const QUEUE_NAME = 'runs';

/** Nodes that share a Redis have prefixes of their own. The braces keep one node's keys in one slot. */
export function queuePrefix(node: string): string {
  return `{hypha-${node.slice(0, 13)}}`;
}

/** At most one job exists for an epoch of a run, however often it is added. */
export function jobIdOf({ run, epoch }: RunJob): string {
  return `${run}-${epoch}`;
}

/**
 * The node's queue in Redis. It only carries hints: adding decides nothing and a lost job is added again, so
 * every failure here is logged and forgotten. Redis may go and come at any time.
 */
export class RunQueue {
  readonly #redis: Redis;
  readonly #queue: Queue<RunJob>;
  readonly #log: Logger;
  #down = false;

  /**
   * @param options.redis path of a unix socket, or a URL
   * @param options.user undefined: the default user, or the one of the URL
   */
  constructor(options: {
    redis: string;
    user: RedisUser | undefined;
    node: string;
    log: Logger;
  }) {
    const { user } = options;
    this.#log = options.log;
    this.#redis = new Redis(options.redis, {
      ...(user === undefined ? {} : { username: user.name, password: user.password }),
      // A hint that has to wait is worth nothing: the sweep adds it again.
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      commandTimeout: 5_000,
      retryStrategy: (attempt) => Math.min(50 * 2 ** Math.min(attempt, 10), 1_000),
    });
    this.#redis.on('error', (err) => this.#noteDown(err));
    this.#redis.on('ready', () => this.#noteUp());
    this.#queue = new Queue<RunJob>(QUEUE_NAME, {
      connection: this.#redis,
      prefix: queuePrefix(options.node),
      skipVersionCheck: true,
      skipWaitingForReady: true,
      defaultJobOptions: { attempts: 1, removeOnComplete: true, removeOnFail: true },
    });
    this.#queue.on('error', (err) => this.#noteDown(err));
  }

  get isUp(): boolean {
    return this.#redis.status === 'ready';
  }

  /** False when the queue did not take them. Never throws. */
  async add(jobs: readonly RunJob[]): Promise<boolean> {
    if (jobs.length === 0) return true;
    if (!this.isUp) return false;
    try {
      await this.#queue.addBulk(
        jobs.map((job) => ({ name: 'run', data: job, opts: { jobId: jobIdOf(job) } })),
      );
      return true;
    } catch (err) {
      this.#noteDown(err);
      return false;
    }
  }

  /**
   * Removes all there is of the queue and of these jobs, whatever became of it: a marker, a pause or a job that
   * somebody made up would keep it from ever handing them out. Nothing is lost that the journal has not.
   * Never throws.
   */
  async reset(jobs: readonly RunJob[]): Promise<void> {
    if (!this.isUp) return;
    const { name, opts } = this.#queue;
    const keys = Object.values(new QueueKeys(opts.prefix).getKeys(name));
    const ofJobs = jobs.flatMap((job) => {
      const key = this.#queue.toKey(jobIdOf(job));
      return [key, `${key}:lock`];
    });
    try {
      // The empty name stands for the queue itself, which is no key.
      await this.#redis.del(...keys.filter((key) => !key.endsWith(':')), ...ofJobs);
    } catch (err) {
      this.#noteDown(err);
    }
  }

  /** Does not wait for a Redis that is away. */
  async close(): Promise<void> {
    const closed = this.#queue.close().catch(() => undefined);
    this.#redis.disconnect();
    await closed;
  }

  #noteDown(err: unknown): void {
    if (!this.#down) this.#log.warn({ err }, 'queue is not reachable');
    this.#down = true;
  }

  #noteUp(): void {
    if (this.#down) this.#log.info('queue is reachable again');
    this.#down = false;
  }
}
