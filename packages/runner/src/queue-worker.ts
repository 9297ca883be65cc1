import { RunId } from '@hypha/protocol';
import type { Logger } from '@hypha/service/process';
import { type Job, type RedisOptions, WaitingError, Worker } from 'bullmq';
import { z } from 'zod';

/** All a job says. Anybody who can write to Redis can write one: the claim decides (design §10). */
const JobData = z.strictObject({ run: RunId, epoch: z.int().min(1) });
export type QueueHint = z.infer<typeof JobData>;

export const QUEUE_LIMITS = {
  /** A lock that is not renewed for this long is free; renewal is twice as often. */
  lockMs: 5_000,
  stalledCheckMs: 2_000,
  /** A job whose runner died is handed out once more; after that the supervisor's sweep knows better. */
  stalledCountMax: 1,
  reconnectMsMax: 1_000,
  /** For each of two last words to Redis, which may be gone. */
  closeMsMax: 1_000,
} as const;

export interface QueueOptions {
  /** As in `RunnerConfig`. */
  readonly redis: string;
  readonly redisUser?: string | undefined;
  readonly redisPassword?: string | undefined;
  readonly queueName: string;
  readonly queuePrefix: string;
  readonly runner: string;
  /** Jobs in hand at once. */
  readonly concurrency: number;
  readonly log: Logger;
  /** Aborted: take no other job. */
  readonly drain: AbortSignal;
  /** Works on the hint to its end. What it throws is logged; the job is gone either way. */
  readonly onHint: (hint: QueueHint) => Promise<void>;
}

export interface QueueWorker {
  /** Waits for the jobs in hand, then lets go of Redis, whether that answers or not. */
  close(): Promise<void>;
}

/** Redis may come and go: a job in hand is not its business. */
export function openQueueWorker(options: QueueOptions): QueueWorker {
  const { log, drain } = options;
  const working = new Set<Promise<void>>();
  const worker = new Worker(
    options.queueName,
    async (job: Job, token?: string) => {
      if (drain.aborted) {
        await job.moveToWait(token);
        throw new WaitingError();
      }
      const hint = JobData.safeParse(job.data);
      if (!hint.success) {
        log.warn({ alarm: 'strange-job', job: job.id }, 'queue job dropped');
        return;
      }
      const work = options.onHint(hint.data);
      working.add(work);
      await work.finally(() => working.delete(work));
    },
    {
      connection: redisOptions(options),
      prefix: options.queuePrefix,
      name: options.runner,
      concurrency: options.concurrency,
      lockDuration: QUEUE_LIMITS.lockMs,
      stalledInterval: QUEUE_LIMITS.stalledCheckMs,
      maxStalledCount: QUEUE_LIMITS.stalledCountMax,
      // BullMQ would else look away for 15 s after any lost connection.
      runRetryDelay: QUEUE_LIMITS.reconnectMsMax,
      removeOnComplete: { count: 0 },
      removeOnFail: { count: 0 },
    },
  );
  // Without a listener an error event would end the process; BullMQ and ioredis come back by themselves.
  worker.on('error', (err) => log.debug({ err }, 'queue error'));
  worker.on('failed', (job, err) => log.warn({ job: job?.id, err }, 'queue job failed'));
  worker.on('lockRenewalFailed', (jobs) => log.warn({ jobs }, 'queue lock lost'));
  return {
    close: async () => {
      // Takes no new job from here on.
      void worker.pause(true).catch(() => undefined);
      await Promise.allSettled(working);
      await withinMs(QUEUE_LIMITS.closeMsMax, worker.close());
      await withinMs(QUEUE_LIMITS.closeMsMax, worker.disconnect());
    },
  };
}

async function withinMs(ms: number, work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([work.catch(() => undefined), over]);
  clearTimeout(timer);
}

function redisOptions({ redis, redisUser, redisPassword }: QueueOptions): RedisOptions {
  const always: RedisOptions = {
    ...(redisUser === undefined ? {} : { username: redisUser }),
    ...(redisPassword === undefined ? {} : { password: redisPassword }),
    // A worker waits for Redis for as long as it takes.
    maxRetriesPerRequest: null,
    retryStrategy: (times: number) => Math.min(times * 50, QUEUE_LIMITS.reconnectMsMax),
  };
  if (redis.startsWith('/')) return { ...always, path: redis };
  return { ...always, url: redis };
}
