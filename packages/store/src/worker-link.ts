import { Worker } from 'node:worker_threads';
import { HyphaError } from '@hypha/protocol';
import type {
  StatementResult,
  StoreRequest,
  WorkerNotice,
  WorkerSettings,
} from './sqlite-message.ts';
import { causeOf, openError, requestError } from './store-failure.ts';

/** Requests the store holds at most; beyond it a caller is told to come back. */
const PENDING_MAX = 20_000;

export type RequestBody = StoreRequest extends infer R
  ? R extends unknown
    ? Omit<R, 'id'>
    : never
  : never;

interface Waiter {
  resolve(results: readonly StatementResult[]): void;
  reject(error: HyphaError): void;
}

/** The store's side of the worker thread: pairs answers with requests, and fails all when it dies. */
export class WorkerLink {
  readonly #worker: Worker;
  readonly #file: string;
  readonly #onBroken: (error: HyphaError) => void;
  readonly #waiters = new Map<number, Waiter>();
  // asked and not posted yet, in order
  #outgoing: StoreRequest[] = [];
  readonly #opened = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<void>();
  #nextId = 1;
  /** Set once no request can be taken any more. */
  #refusal: HyphaError | undefined;
  #closing = false;
  #commits = 0;

  /** Rejects with `E_UNAVAILABLE` when another process owns the file. */
  static async open(
    settings: WorkerSettings,
    onBroken: (error: HyphaError) => void,
  ): Promise<WorkerLink> {
    const link = new WorkerLink(settings, onBroken);
    await link.#opened.promise;
    return link;
  }

  private constructor(settings: WorkerSettings, onBroken: (error: HyphaError) => void) {
    this.#file = settings.file;
    this.#onBroken = onBroken;
    this.#worker = new Worker(new URL('./sqlite-worker.ts', import.meta.url), {
      workerData: settings,
      name: 'store',
      execArgv: [],
    });
    this.#worker.on('message', (notice: WorkerNotice) => this.#receive(notice));
    this.#worker.on('error', (error) => this.#break(error));
    this.#worker.on('exit', () => {
      if (!this.#closing || this.#waiters.size > 0) this.#break(new Error('the thread ended'));
      this.#ended.resolve();
    });
  }

  get pending(): number {
    return this.#waiters.size;
  }

  /** Commits since the store was opened: one for each group of writes. */
  get commits(): number {
    return this.#commits;
  }

  request(body: RequestBody): Promise<readonly StatementResult[]> {
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal);
    if (this.#waiters.size >= PENDING_MAX) {
      return Promise.reject(
        new HyphaError('E_UNAVAILABLE', `store ${this.#file} has ${PENDING_MAX} requests waiting`),
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<readonly StatementResult[]>();
    const id = this.#nextId++;
    // What is asked in one turn of the event loop crosses over together: a message each costs more than its work.
    if (this.#outgoing.length === 0) setImmediate(() => this.#post());
    this.#outgoing.push({ ...body, id });
    this.#waiters.set(id, { resolve, reject });
    return promise;
  }

  #post(): void {
    const requests = this.#outgoing;
    this.#outgoing = [];
    if (requests.length === 0 || this.#refusal?.code === 'E_INTERNAL') return;
    try {
      this.#worker.postMessage(requests);
    } catch {
      // One of them cannot cross: each alone learns its own result.
      for (const request of requests) this.#postAlone(request);
    }
  }

  #postAlone(request: StoreRequest): void {
    try {
      this.#worker.postMessage([request]);
    } catch (cause) {
      const error = new HyphaError('E_INTERNAL', `cannot hand a statement to store ${this.#file}`, {
        cause,
      });
      this.#waiters.get(request.id)?.reject(error);
      this.#waiters.delete(request.id);
    }
  }

  /** Refuses new requests, lets those that were taken finish, closes the file. Idempotent. */
  async close(): Promise<void> {
    if (!this.#closing) {
      this.#closing = true;
      this.#refusal ??= new HyphaError('E_UNAVAILABLE', `store ${this.#file} is closed`);
      this.#outgoing.push({ id: 0, kind: 'close' });
      this.#post();
    }
    await this.#ended.promise;
  }

  #receive(notice: WorkerNotice): void {
    switch (notice.type) {
      case 'opened':
        this.#opened.resolve();
        return;
      case 'refused':
        this.#closing = true;
        this.#refusal = openError(notice.failure, this.#file);
        this.#opened.reject(this.#refusal);
        return;
      case 'answers':
        this.#commits = notice.commits;
        for (const answer of notice.answers) {
          const waiter = this.#waiters.get(answer.id);
          this.#waiters.delete(answer.id);
          if (answer.ok) waiter?.resolve(answer.results);
          else waiter?.reject(requestError(answer.failure, this.#file));
        }
        return;
      case 'broken':
        this.#break(causeOf(notice.failure));
        return;
      case 'closed':
        return;
      default:
        notice satisfies never;
    }
  }

  /** What was promised can no longer be kept: every caller fails and the process is told. */
  #break(cause: unknown): void {
    if (this.#refusal?.code === 'E_INTERNAL') return;
    const error = new HyphaError('E_INTERNAL', `store ${this.#file} broke down`, { cause });
    this.#refusal = error;
    this.#closing = true;
    for (const waiter of this.#waiters.values()) waiter.reject(error);
    this.#waiters.clear();
    this.#opened.reject(error);
    this.#onBroken(error);
  }
}
