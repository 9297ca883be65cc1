import type { GuestHost, TurnRequest } from './guest-host.ts';
import type { HostAnswer } from './host/host-message.ts';
import type { AskOptions } from './sandbox-host.ts';

/** A script's place in a host. */
export class Seat {
  readonly host: GuestHost;
  /** The script's number there. */
  readonly guest: number;
  #wasUsed = false;
  #left: Promise<void> | undefined;

  /** Use `GuestHost.sit`. */
  constructor(host: GuestHost, guest: number) {
    this.host = host;
    this.guest = guest;
  }

  get wasUsed(): boolean {
    return this.#wasUsed;
  }

  /**
   * What `accept` makes of the answer. Rejects with what the host did in this turn or `accept` threw, with
   * `GuestDisplaced` when the host was lost in another's turn, with the signal's reason when aborted.
   */
  async ask<T>(
    request: TurnRequest,
    options: AskOptions & { readonly signal: AbortSignal },
    accept: (answer: HostAnswer) => T,
  ): Promise<T> {
    const { signal } = options;
    signal.throwIfAborted();
    this.#wasUsed = true;
    const onAbort = () => this.host.abandon(this, signal.reason);
    signal.addEventListener('abort', onAbort);
    try {
      return await this.host.ask(this, request, options, accept);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** The place is free when it resolves, whatever the host says. Idempotent. */
  async leave(): Promise<void> {
    this.#left ??= this.host.leave(this);
    await this.#left;
  }
}
