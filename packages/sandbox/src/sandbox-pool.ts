import {
  type ErrorCode,
  type GuestFailure,
  type GuestProgram,
  type GuestRequest,
  HyphaError,
  isErrorCode,
  type Json,
} from '@hypha/protocol';
import type { HostWrapper } from './confinement.ts';
import { confineHosts, hostCommand } from './host-command.ts';
import { SANDBOX_LIMITS } from './limits.ts';
import { SandboxGuest } from './sandbox-guest.ts';
import { SandboxHost } from './sandbox-host.ts';

/**
 * Sandbox hosts of one process, kept warm between scripts. Every script gets a fresh instance of the
 * engine; a host is used again only after a script that ended in good order, and replaced at its bounds
 * (`SANDBOX_LIMITS`), because what an engine leaks stays in its host.
 */
export class SandboxPool implements AsyncDisposable {
  readonly #node: string;
  readonly #wrapper: Promise<HostWrapper>;
  #started = 0;
  readonly #idleMax: number;
  /** Hosts without a script, also those that just start or forget one; undefined when that failed. */
  readonly #idle: Promise<SandboxHost | undefined>[] = [];
  readonly #all = new Set<SandboxHost>();
  // host → scripts it has run
  readonly #scripts = new Map<SandboxHost, number>();
  #isClosed = false;

  /**
   * @param options.idleMax hosts kept for later scripts: as many as scripts run at once
   * @param options.node absolute path of the Node binary that hosts run on
   */
  constructor(options: { idleMax?: number; node?: string } = {}) {
    this.#node = options.node ?? process.execPath;
    this.#wrapper = confineHosts(this.#node);
    // Whoever needs a host hears of it.
    this.#wrapper.catch(() => undefined);
    this.#idleMax = options.idleMax ?? 1;
  }

  /** Starts a host ahead, so that the next script finds one. Never throws: `openGuest` will say why. */
  warm(): void {
    if (this.#isClosed || this.#idle.length > 0) return;
    this.#idle.push(this.#startHost().catch(() => undefined));
  }

  /** A guest that has run nothing. Throws `E_UNAVAILABLE` or `E_SANDBOX` when no host can be started. */
  async openGuest(_request: GuestRequest): Promise<SandboxGuest> {
    return new SandboxGuest(await this.#takeHost(), (host, isClean) => {
      this.#takeBack(host, isClean);
    });
  }

  /**
   * The value of a script's plain export, e.g. its `deployment`; undefined when there is none. Loads the
   * script but runs no default function and makes no call. Throws `E_SCRIPT_SYNTAX`, `E_SCRIPT` and the
   * codes of limits, with `where` in the source.
   */
  async readExport(source: string, name: string, signal: AbortSignal): Promise<Json | undefined> {
    const host = await this.#takeHost();
    let isClean = false;
    try {
      const answer = await host.ask(
        { type: 'read-export', program: programToRead(source), name },
        {
          timeoutMs: SANDBOX_LIMITS.readCpuMs + SANDBOX_LIMITS.killGraceMs,
          timeoutCode: 'E_CPU',
          answerBytesMax: 2 * SANDBOX_LIMITS.readOutputBytes + SANDBOX_LIMITS.readyBytesMax,
          signal,
        },
      );
      isClean = answer.type === 'export' || answer.type === 'export-failure';
      if (answer.type === 'export-failure') throw toError(answer.failure);
      if (answer.type !== 'export') {
        throw new HyphaError('E_SANDBOX', 'the sandbox host sent no export');
      }
      return answer.text === null ? undefined : (JSON.parse(answer.text) as Json);
    } finally {
      this.#takeBack(host, isClean);
    }
  }

  /** Ends every host, also those with a script in them, and waits until they are gone. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#all].map((host) => host.stop()));
    await Promise.all(this.#idle.splice(0));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #takeHost(): Promise<SandboxHost> {
    for (let idle = this.#idle.shift(); idle !== undefined; idle = this.#idle.shift()) {
      const host = await idle;
      if (host?.isAlive) return host;
    }
    return await this.#startHost();
  }

  async #startHost(): Promise<SandboxHost> {
    if (this.#isClosed) throw new HyphaError('E_UNAVAILABLE', 'the sandbox is closed');
    const wrapper = await this.#wrapper;
    const host = await SandboxHost.start(hostCommand(this.#node, wrapper, this.#started++));
    this.#all.add(host);
    if (!this.#isClosed) return host;
    await this.#drop(host);
    throw new HyphaError('E_UNAVAILABLE', 'the sandbox is closed');
  }

  #takeBack(host: SandboxHost, isClean: boolean): void {
    const scripts = (this.#scripts.get(host) ?? 0) + 1;
    this.#scripts.set(host, scripts);
    const isWanted = this.#idle.length < this.#idleMax && !this.#isClosed;
    if (isClean && isWanted && scripts < SANDBOX_LIMITS.hostScriptsMax) {
      this.#idle.push(this.#reset(host));
    } else {
      void this.#drop(host);
      this.warm();
    }
  }

  /** The host without its script, or undefined when it cannot take another. */
  async #reset(host: SandboxHost): Promise<SandboxHost | undefined> {
    try {
      const answer = await host.ask({ type: 'reset' }, RESET);
      const isSound =
        answer.type === 'ready' &&
        answer.residentBytes <= SANDBOX_LIMITS.hostBytesMax &&
        answer.cpuSeconds <= SANDBOX_LIMITS.hostCpuSecondsMax;
      if (isSound) return host;
    } catch {
      // Killed for not answering: gone, like any other that did not come back.
    }
    await this.#drop(host);
    return undefined;
  }

  async #drop(host: SandboxHost): Promise<void> {
    this.#scripts.delete(host);
    await host.stop();
    this.#all.delete(host);
  }
}

const RESET = {
  timeoutMs: SANDBOX_LIMITS.hostResetMsMax,
  timeoutCode: 'E_SANDBOX',
  answerBytesMax: SANDBOX_LIMITS.readyBytesMax,
} as const;

function programToRead(source: string): GuestProgram {
  return {
    source,
    input: null,
    seed: '0'.repeat(64),
    nowMs: 0,
    node: { id: '', name: '', labels: {} },
    limits: {
      cpuMs: SANDBOX_LIMITS.readCpuMs,
      memoryBytes: SANDBOX_LIMITS.readMemoryBytes,
      outputBytes: SANDBOX_LIMITS.readOutputBytes,
      hostCalls: 0,
    },
  };
}

function toError({ code, message, place }: GuestFailure): HyphaError {
  const known: ErrorCode = isErrorCode(code) ? code : 'E_SCRIPT';
  return new HyphaError(known, message, place === null ? {} : { where: place });
}
