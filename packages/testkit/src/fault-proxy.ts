import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** What is wrong with the network just now. Applies to open connections and to new ones. */
export interface Faults {
  /** Every chunk arrives this much later, in order. */
  readonly delayMs: number;
  /** Nothing arrives and nothing is lost: it comes after the partition. */
  readonly partitioned: boolean;
  /** New connections are reset. */
  readonly refusing: boolean;
  /** One bit of every chunk of an answer is flipped. */
  readonly corrupting: boolean;
  /** The connection is reset when the other side starts to answer: the request was carried out. */
  readonly losingAnswers: boolean;
}

const HEALTHY: Faults = {
  delayMs: 0,
  partitioned: false,
  refusing: false,
  corrupting: false,
  losingAnswers: false,
};

/** A TCP hop between a client and a server, for breaking what is in between. */
export class FaultProxy implements AsyncDisposable {
  readonly #target: { readonly host: string; readonly port: number };
  readonly #server = createServer({ allowHalfOpen: true }, (client) => this.#join(client));
  readonly #sockets = new Set<Socket>();
  #faults = HEALTHY;
  #healed = Promise.withResolvers<void>();

  private constructor(target: { readonly host: string; readonly port: number }) {
    this.#target = target;
  }

  static async open(target: {
    readonly host?: string;
    readonly port: number;
  }): Promise<FaultProxy> {
    const proxy = new FaultProxy({ host: '127.0.0.1', ...target });
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port; // it listens on TCP
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get connections(): number {
    return this.#sockets.size / 2;
  }

  /** Adds to the faults there are. */
  inject(faults: Partial<Faults>): void {
    this.#faults = { ...this.#faults, ...faults };
  }

  heal(): void {
    this.#faults = HEALTHY;
    this.#healed.resolve();
    this.#healed = Promise.withResolvers();
  }

  /** Resets every open connection. */
  drop(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Ends every connection towards the client, as a server does that stops: the other way stays open. */
  halfClose(): void {
    for (const socket of this.#sockets) if (socket.localPort === this.port) socket.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.heal();
    this.drop();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }

  #join(client: Socket): void {
    if (this.#faults.refusing) {
      client.resetAndDestroy();
      return;
    }
    const server = connect({ ...this.#target, allowHalfOpen: true });
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => undefined); // the close that follows is what counts
      socket.on('close', () => this.#sockets.delete(socket));
    }
    client.on('close', () => server.destroy());
    server.on('close', () => client.destroy());
    void this.#carry(client, server, false);
    void this.#carry(server, client, true);
  }

  async #carry(from: Socket, to: Socket, isAnswer: boolean): Promise<void> {
    try {
      // Left open at its end: what comes the other way is still on its way.
      const chunks: AsyncIterable<Buffer> = from.iterator({ destroyOnReturn: false });
      for await (const chunk of chunks) {
        if (this.#faults.delayMs > 0) await pass(this.#faults.delayMs);
        while (this.#faults.partitioned) await this.#healed.promise;
        if (isAnswer && this.#faults.losingAnswers) {
          to.resetAndDestroy();
          return;
        }
        const bytes = isAnswer && this.#faults.corrupting ? flipped(chunk) : chunk;
        if (!to.write(bytes)) await once(to, 'drain');
      }
      to.end();
    } catch {
      to.destroy();
    }
  }
}

function pass(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function flipped(chunk: Buffer): Buffer {
  const copy = Buffer.from(chunk);
  const middle = copy.length >> 1;
  copy[middle] = (copy[middle] ?? 0) ^ 1;
  return copy;
}
