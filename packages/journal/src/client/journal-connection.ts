import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import {
  fromProblem,
  HyphaError,
  isHyphaError,
  type JournalBody,
  type JournalEvent,
} from '@hypha/protocol';
import { z } from 'zod';
import { LineChannel } from './line-channel.ts';
import {
  AppendAnswer,
  ClaimAnswer,
  KeptAnswer,
  LINE_BYTES_MAX,
  type NumberedRequest,
  type RunnerRequest,
  SecretsAnswer,
  SupervisorAnswer,
  SupervisorNotice,
} from './socket-protocol.ts';

export interface JournalConnectionOptions {
  readonly socketPath: string;
  /** This runner's id. */
  readonly runner: string;
  /** Proves that the supervisor started this runner. */
  readonly token: string;
  readonly pid: number;
  readonly onNotice: (notice: SupervisorNotice) => void;
  /** The supervisor stayed away too long, or gave this runner's runs to others: end the process. */
  readonly onLost: (error: HyphaError) => void;
  /** How long to try to come back, milliseconds. */
  readonly reconnectMsMax?: number;
}

const RECONNECT_MS_MAX = 60_000;
/** A line within the peer's bound in bytes, whatever its characters. */
const LINE_CHARS_MAX = LINE_BYTES_MAX / 4;
/** From hello to its answer. The supervisor greets as soon as its journal is open. */
const HELLO_MS_MAX = 10_000;
/** From any other request to its answer, a restart of the supervisor included. */
const ANSWER_MS_MAX = 180_000;
const DELAY_MS_MIN = 10;
const DELAY_MS_MAX = 500;

interface Pending {
  readonly id: number;
  readonly method: RunnerRequest['method'];
  /** The request as it goes over the wire. */
  readonly line: string;
  resolve(value: unknown): void;
  reject(error: HyphaError): void;
}

/** What this runner owns and how much of its journal it knows. */
interface Holding {
  readonly epoch: number;
  seq: number;
  /** Asked to take it back, without an answer yet: it may be nobody's here already. */
  isParking?: boolean;
}

/**
 * A runner's way to the journal. It survives a restart of the supervisor: while that is away, claims and
 * appends wait, so no step starts; then the runner says what it holds and sends again what had no answer.
 */
export class JournalConnection {
  readonly #options: JournalConnectionOptions;
  readonly #pending = new Map<number, Pending>();
  // run → what this runner owns of it
  readonly #held = new Map<string, Holding>();
  #channel: LineChannel | undefined;
  /** Said hello and was answered: requests may be sent. */
  #greeted = false;
  #nextId = 1;
  #over: HyphaError | undefined;

  /** Use `connectJournal`. */
  constructor(options: JournalConnectionOptions) {
    this.#options = options;
  }

  /** Resolves when the supervisor knows this runner. */
  async open(): Promise<void> {
    await this.#reconnect();
    if (this.#over !== undefined) throw this.#over;
  }

  /** Throws `E_STALE_EPOCH` when the job is not the run's newest: drop it. */
  async claim(run: string, epoch: number): Promise<ClaimAnswer> {
    const answer = await this.#request(ClaimAnswer, { method: 'claim', run, epoch });
    this.#held.set(run, { epoch, seq: answer.events.length });
    return answer;
  }

  /**
   * In order, all or none; durable when it resolves. One at a time for each run. Throws `E_STALE_EPOCH` when
   * another runner owns the run.
   */
  async append(run: string, epoch: number, bodies: readonly JournalBody[]): Promise<void> {
    const holding = this.#heldIn(run, epoch);
    const { seq } = await this.#request(AppendAnswer, {
      method: 'append',
      run,
      epoch,
      after: holding.seq,
      bodies: [...bodies],
    });
    holding.seq = seq;
    // From here the run is the supervisor's.
    if (bodies.some(endsHolding)) this.release(run);
  }

  /**
   * Version → path of a file with the value. Throws `E_STALE_EPOCH` when another runner owns the run, `E_SECRET`
   * when its deployment has no such value here.
   */
  async provideSecrets(
    run: string,
    epoch: number,
    secrets: readonly { readonly secret: string; readonly version: string }[],
  ): Promise<Readonly<Record<string, string>>> {
    const { files } = await this.#request(SecretsAnswer, {
      method: 'secrets',
      run,
      epoch,
      secrets: [...secrets],
    });
    return files;
  }

  /**
   * Gives back a run that only waits, until `wakeAtMs` (epoch milliseconds). When it resolves, the run is nobody's
   * here, whether this or a takeover ended the epoch.
   */
  async park(run: string, epoch: number, wakeAtMs: number): Promise<void> {
    const holding = this.#heldIn(run, epoch);
    holding.isParking = true;
    try {
      const { seq: after } = holding;
      await this.#request(z.unknown(), { method: 'park', run, epoch, after, wakeAtMs });
    } catch (error) {
      if (!isStale(error)) throw error;
    }
    this.release(run);
  }

  /**
   * The journal of another run of the deployment of `run`: one that failed and was signed to be kept. Throws
   * `E_NOT_FOUND` for any other, `E_TOO_LATE` when a later run of the deployment has committed since.
   */
  async readKept(run: string, epoch: number, target: string): Promise<readonly JournalEvent[]> {
    const request = { method: 'read-kept', run, epoch, target } as const;
    return (await this.#request(KeptAnswer, request)).events;
  }

  /** Tells the supervisor that this runner is not stopped. Throws when that stays away. */
  async beat(): Promise<void> {
    await this.#request(z.unknown(), { method: 'beat' });
  }

  /** The runner has nothing more to do with this run. */
  release(run: string): void {
    this.#held.delete(run);
  }

  /** The runner ends: what it still holds is taken over. */
  close(): void {
    this.#end(new HyphaError('E_UNAVAILABLE', 'the journal connection was closed'));
  }

  #heldIn(run: string, epoch: number): Holding {
    const holding = this.#held.get(run);
    if (holding?.epoch === epoch) return holding;
    throw new HyphaError('E_STALE_EPOCH', `this runner does not hold ${run} in epoch ${epoch}`);
  }

  async #request<T extends z.ZodType>(schema: T, request: RunnerRequest): Promise<z.infer<T>> {
    if (this.#over !== undefined) throw this.#over;
    const timer = setTimeout(() => {
      const message = `the supervisor did not answer ${request.method} in ${ANSWER_MS_MAX} ms`;
      this.#lose(new HyphaError('E_UNAVAILABLE', message));
    }, ANSWER_MS_MAX);
    const value = await this.#ask(request).finally(() => clearTimeout(timer));
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    throw new HyphaError('E_INTERNAL', `cannot read the supervisor's answer to ${request.method}`, {
      cause: parsed.error,
    });
  }

  /** Sent at once when the supervisor knows this runner, or as soon as it does. */
  #ask(request: RunnerRequest): Promise<unknown> {
    const id = this.#nextId++;
    const line = JSON.stringify({ id, request } satisfies NumberedRequest);
    if (line.length > LINE_CHARS_MAX) {
      const message = `cannot send ${line.length} characters in one ${request.method}`;
      return Promise.reject(new HyphaError('E_OUTPUT', message));
    }
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { id, method: request.method, line, resolve, reject });
      if (this.#greeted || request.method === 'hello') this.#channel?.sendLine(line);
    });
  }

  async #reconnect(): Promise<void> {
    const { reconnectMsMax = RECONNECT_MS_MAX, socketPath } = this.#options;
    const deadline = performance.now() + reconnectMsMax;
    let delayMs = DELAY_MS_MIN;
    while (this.#over === undefined) {
      try {
        await this.#greet();
        return;
      } catch (cause) {
        if (isHyphaError(cause) && cause.code !== 'E_UNAVAILABLE') return this.#lose(cause);
        if (performance.now() > deadline) {
          const message = `cannot reach the supervisor at ${socketPath} for ${reconnectMsMax} ms`;
          return this.#lose(new HyphaError('E_UNAVAILABLE', message, { cause }));
        }
      }
      await delay(delayMs);
      delayMs = Math.min(delayMs * 2, DELAY_MS_MAX);
    }
  }

  async #greet(): Promise<void> {
    const channel = await this.#dial();
    const timer = setTimeout(() => channel.destroy(), HELLO_MS_MAX);
    const hello = this.#hello().catch((error: unknown) => {
      // A park that was heard and not answered: what was given back is not held any more.
      if (!isStale(error) || !this.#letGoOfParking()) throw error;
      return this.#hello();
    });
    await hello.finally(() => clearTimeout(timer));
    this.#greeted = true;
    for (const { line } of this.#pending.values()) channel.sendLine(line);
  }

  async #hello(): Promise<void> {
    const { runner, token, pid } = this.#options;
    const holding = [...this.#held].map(([run, { epoch }]) => ({ run, epoch }));
    await this.#ask({ method: 'hello', runner, token, pid, holding });
  }

  /** True when there was one. */
  #letGoOfParking(): boolean {
    const parking = [...this.#held].filter(([, { isParking }]) => isParking === true);
    for (const [run] of parking) this.#held.delete(run);
    return parking.length > 0;
  }

  async #dial(): Promise<LineChannel> {
    const socket = connect(this.#options.socketPath);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    const channel = new LineChannel(socket, {
      onValue: (value) => this.#receive(value),
      onClose: (error) => this.#onClose(channel, error),
    });
    this.#channel = channel;
    return channel;
  }

  #receive(value: unknown): void {
    // Nearly everything that comes is an answer.
    const answer = SupervisorAnswer.safeParse(value);
    if (!answer.success) {
      const notice = SupervisorNotice.safeParse(value);
      if (notice.success) this.#options.onNotice(notice.data);
      else
        this.#channel?.destroy(new Error('the supervisor sent what is neither answer nor notice'));
      return;
    }
    const pending = this.#pending.get(answer.data.id);
    this.#pending.delete(answer.data.id);
    if (answer.data.ok) pending?.resolve(answer.data.value);
    else pending?.reject(fromProblem(answer.data.problem));
  }

  #onClose(channel: LineChannel, error: Error | undefined): void {
    if (this.#channel !== channel) return;
    this.#channel = undefined;
    const wasGreeted = this.#greeted;
    this.#greeted = false;
    // A greeting is of its connection; everything else is sent again on the next.
    for (const pending of [...this.#pending.values()]) {
      if (pending.method !== 'hello') continue;
      this.#pending.delete(pending.id);
      const message = 'the supervisor closed the connection';
      pending.reject(new HyphaError('E_UNAVAILABLE', message, { cause: error }));
    }
    // `#reconnect` never rejects.
    if (wasGreeted && this.#over === undefined) void this.#reconnect();
  }

  #lose(error: HyphaError): void {
    if (this.#over !== undefined) return;
    this.#end(error);
    this.#options.onLost(error);
  }

  #end(error: HyphaError): void {
    this.#over ??= error;
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
    this.#channel?.end();
    this.#channel = undefined;
  }
}

function isStale(error: unknown): boolean {
  return isHyphaError(error) && error.code === 'E_STALE_EPOCH';
}

function endsHolding(body: JournalBody): boolean {
  return body.type === 'committed' || body.type === 'finished';
}

/** Connects, says hello, and comes back by itself. Throws when the supervisor refuses this runner. */
export async function connectJournal(
  options: JournalConnectionOptions,
): Promise<JournalConnection> {
  const connection = new JournalConnection(options);
  await connection.open();
  return connection;
}
