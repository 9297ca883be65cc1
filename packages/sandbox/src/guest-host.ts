import { GuestDisplaced } from '@hypha/protocol';
import type { HostAnswer, HostRequest } from './host/host-message.ts';
import { SANDBOX_LIMITS } from './limits.ts';
import type { AskOptions, SandboxHost } from './sandbox-host.ts';
import { Seat } from './seat.ts';

/** A request without the number of its script. */
export type TurnRequest<T = HostRequest> = T extends HostRequest ? Omit<T, 'guest'> : never;

interface Turn {
  readonly seat: Seat;
  readonly request: TurnRequest;
  readonly options: AskOptions;
  /** Throws when the answer cannot be true: that ends the host. */
  readonly accept: (answer: HostAnswer) => void;
  readonly reject: (error: unknown) => void;
}

interface GuestHostOptions {
  /** From its first script until it takes no more, milliseconds. */
  readonly ageMsMax: number;
  /** A script has left it, it takes none any more, or it is gone. */
  readonly onChange: (host: GuestHost) => void;
}

/**
 * A sandbox host with the scripts in it, all of one realm, which compute there one at a time in the order they
 * ask to. Who is in its turn when the host dies is suspected and gets the error of that; all others lose their
 * place without a fault of theirs: `GuestDisplaced`.
 */
export class GuestHost {
  readonly #options: GuestHostOptions;
  readonly #starting: Promise<SandboxHost>;
  readonly #seats = new Set<Seat>();
  readonly #queue: Turn[] = [];
  #host: SandboxHost | undefined;
  #current: Turn | undefined;
  #realm: string | undefined;
  #isAlone = false;
  #isRetired = false;
  #runs = 0;
  #age: NodeJS.Timeout | undefined;
  #lostTo: { readonly reason: unknown } | undefined;

  constructor(starting: Promise<SandboxHost>, options: GuestHostOptions) {
    this.#options = options;
    this.#starting = starting;
    starting.then(
      (host) => this.#onStarted(host),
      (error: unknown) => this.#onGone(error),
    );
  }

  get isGone(): boolean {
    return this.#lostTo !== undefined;
  }

  /** Takes no further script. */
  get isRetired(): boolean {
    return this.#isRetired;
  }

  /** Of one script and never of another. */
  get isAlone(): boolean {
    return this.#isAlone;
  }

  /** Scripts in it. */
  get guests(): number {
    return this.#seats.size;
  }

  /** Undefined until its first script. */
  get realm(): string | undefined {
    return this.#realm;
  }

  get hasRoom(): boolean {
    const isFull = this.#seats.size >= SANDBOX_LIMITS.hostGuestsMax;
    return !this.#isRetired && !this.#isAlone && !isFull;
  }

  /** Takes a place at once; `ready` says when it can be used. */
  sit(realm: string, isAlone: boolean): Seat {
    this.#realm = realm;
    this.#isAlone = isAlone;
    this.#age ??= setTimeout(() => this.retire(), this.#options.ageMsMax).unref();
    this.#runs += 1;
    const seat = new Seat(this, this.#runs);
    this.#seats.add(seat);
    if (this.#runs >= SANDBOX_LIMITS.hostRunsMax) this.#isRetired = true;
    return seat;
  }

  /** Throws when the host could not be started. */
  async ready(): Promise<void> {
    await this.#starting;
  }

  /** No further script; ends when it is empty. */
  retire(): void {
    if (this.#isRetired) return;
    this.#isRetired = true;
    this.#options.onChange(this);
  }

  /** Kills it and waits until it is gone. Idempotent. */
  async stop(reason?: unknown): Promise<void> {
    clearTimeout(this.#age);
    this.#isRetired = true;
    const host = await this.#starting.catch(() => undefined);
    await host?.stop(reason);
  }

  /** One turn of a seat's script, after those of others that asked before. What `accept` throws ends the host. */
  async ask<T>(
    seat: Seat,
    request: TurnRequest,
    options: AskOptions,
    accept: (answer: HostAnswer) => T,
  ): Promise<T> {
    if (this.#lostTo !== undefined) throw new GuestDisplaced(this.#lostTo.reason);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const turn = { seat, request, options, reject };
    this.#queue.push({ ...turn, accept: (answer) => resolve(accept(answer)) });
    void this.#serve();
    return await promise;
  }

  /**
   * The script of a seat is not wanted any more: what it waits for is rejected at once with `reason`. In its turn it
   * goes on to the end of that, unless nobody else is in the host.
   */
  abandon(seat: Seat, reason: unknown): void {
    const index = this.#queue.findIndex((turn) => turn.seat === seat);
    if (index >= 0) this.#queue.splice(index, 1)[0]?.reject(reason);
    if (this.#current?.seat !== seat) return;
    this.#current.reject(reason);
    if (this.#seats.size === 1) void this.stop(reason);
  }

  /** Use `Seat.leave`. */
  async leave(seat: Seat): Promise<void> {
    const isLast = this.#seats.size === 1;
    if (this.#isAlone || (this.#isRetired && isLast)) await this.stop();
    else if (seat.wasUsed && !this.isGone) await this.#forget(seat);
    this.#seats.delete(seat);
    this.#options.onChange(this);
  }

  async #forget(seat: Seat): Promise<void> {
    try {
      await this.ask(seat, { type: 'close' }, CLOSE, (answer) => {
        if (answer.type !== 'closed') throw new Error('the host forgets nothing');
        const isLast = this.#seats.size === 1;
        const isWornOut =
          answer.cpuSeconds > SANDBOX_LIMITS.hostCpuSecondsMax ||
          (isLast && answer.residentBytes > SANDBOX_LIMITS.hostBytesMax);
        if (isWornOut) this.retire();
      });
    } catch {
      // It is gone, which says itself to whoever else is in it.
    }
  }

  async #serve(): Promise<void> {
    if (this.#current !== undefined) return;
    while (this.#host?.isAlive) {
      const turn = this.#queue.shift();
      if (turn === undefined) return;
      this.#current = turn;
      await this.#take(this.#host, turn);
      this.#current = undefined;
    }
  }

  async #take(host: SandboxHost, { seat, request, options, accept, reject }: Turn): Promise<void> {
    try {
      // The number makes a request of what was one but for it.
      const answer = await host.ask({ ...request, guest: seat.guest } as HostRequest, options);
      accept(answer);
    } catch (error) {
      reject(error);
      await host.stop(error);
    }
  }

  #onStarted(host: SandboxHost): void {
    this.#host = host;
    void host.gone.then((reason) => this.#onGone(reason));
    void this.#serve();
  }

  #onGone(reason: unknown): void {
    clearTimeout(this.#age);
    this.#lostTo = { reason };
    this.#isRetired = true;
    for (const turn of this.#queue.splice(0)) turn.reject(new GuestDisplaced(reason));
    this.#options.onChange(this);
  }
}

const CLOSE: AskOptions = {
  timeoutMs: SANDBOX_LIMITS.hostCloseMsMax,
  timeoutCode: 'E_SANDBOX',
  answerBytesMax: SANDBOX_LIMITS.readyBytesMax,
};
