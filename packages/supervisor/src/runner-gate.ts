import { chmod, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { LineChannel, NumberedRequest, type RunnerRequest } from '@hypha/journal/client';
import { HyphaError, isHyphaError, toProblem } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { RunClaims } from './run-claims.ts';
import type { RunnerPool } from './runner-pool.ts';

interface GateDeps {
  readonly socketPath: string;
  readonly pool: RunnerPool;
  readonly claims: RunClaims;
  readonly log: Logger;
}

/** The unix socket on which runners claim and append. Its end of file is how a dead runner is seen. */
export class RunnerGate {
  readonly #deps: GateDeps;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(deps: GateDeps) {
    this.#deps = deps;
    this.#server = createServer((socket) => this.#welcome(socket));
  }

  async open(): Promise<void> {
    const { socketPath } = this.#deps;
    // Left by a predecessor that was killed; the journal's lock says that it is gone.
    await rm(socketPath, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(socketPath, resolve);
    });
    await chmod(socketPath, 0o600);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #welcome(socket: Socket): void {
    this.#sockets.add(socket);
    const guest = new RunnerGuest(this.#deps);
    const channel = new LineChannel(socket, {
      onValue: (value) => guest.receive(channel, value),
      onClose: () => {
        this.#sockets.delete(socket);
        guest.leave();
      },
    });
  }
}

/** One connection. */
class RunnerGuest {
  readonly #deps: GateDeps;
  /** Known once it said hello. */
  #runner: string | undefined;
  #hasLeft = false;

  constructor(deps: GateDeps) {
    this.#deps = deps;
  }

  receive(channel: LineChannel, value: unknown): void {
    if (this.#runner !== undefined) this.#deps.pool.hear(this.#runner);
    const parsed = NumberedRequest.safeParse(value);
    if (!parsed.success) {
      this.#deps.log.error({ runner: this.#runner, err: parsed.error }, 'runner spoke nonsense');
      channel.destroy();
      return;
    }
    const { id, request } = parsed.data;
    this.#answer(channel, request).then(
      (answer) => channel.send({ id, ok: true, value: answer }),
      (error: unknown) => channel.send({ id, ok: false, problem: this.#problemOf(error, request) }),
    );
  }

  leave(): void {
    this.#hasLeft = true;
    if (this.#runner !== undefined) this.#deps.pool.lose(this.#runner);
  }

  async #answer(channel: LineChannel, request: RunnerRequest): Promise<unknown> {
    const { claims, pool } = this.#deps;
    if (request.method === 'hello') {
      pool.greet(request.runner, request.token, request.pid, {
        close: () => channel.destroy(),
        notify: (notice) => channel.send(notice),
      });
      this.#runner = request.runner;
      // Gone before it was known: nobody else will tell the pool.
      if (this.#hasLeft) pool.lose(this.#runner);
      await claims.reattach(request.runner, request.holding);
      return {};
    }
    if (this.#runner === undefined) {
      throw new HyphaError('E_UNAUTHENTICATED', `${request.method} came before hello`);
    }
    if (request.method === 'claim') return await claims.claim(this.#runner, request);
    if (request.method === 'secrets') return await claims.provideSecrets(this.#runner, request);
    if (request.method === 'park') return await claims.park(this.#runner, request);
    if (request.method === 'read-kept') return await claims.readKept(this.#runner, request);
    // That it came is all it says.
    if (request.method === 'beat') return {};
    return await claims.append(this.#runner, request);
  }

  #problemOf(error: unknown, { method }: RunnerRequest) {
    if (isHyphaError(error)) return toProblem(error);
    this.#deps.log.error({ err: error, runner: this.#runner, method }, 'runner request failed');
    return toProblem(new HyphaError('E_INTERNAL', `cannot answer ${method}`));
  }
}
