import {
  type ErrorCode,
  GuestDisplaced,
  type GuestFailure,
  type GuestProgram,
  type GuestRequest,
  HyphaError,
  isErrorCode,
  type Json,
} from '@hypha/protocol';
import type { HostWrapper } from './confinement.ts';
import { GuestHost } from './guest-host.ts';
import { confineHosts, hostCommand } from './host-command.ts';
import { SANDBOX_LIMITS } from './limits.ts';
import { MemoryBudget } from './memory-budget.ts';
import { type GuestLimits, SandboxGuest } from './sandbox-guest.ts';
import { SandboxHost } from './sandbox-host.ts';
import type { Seat } from './seat.ts';

/** Scripts that belong to no run, whose exports are read: no realm is named so. */
const NO_REALM = '';

/**
 * Sandbox hosts of one process, one of them always ready. Scripts of one realm share hosts; each has an instance
 * of the engine of its own. A host takes no more scripts at its bounds (`SANDBOX_LIMITS`), because what an engine
 * leaks stays in its host, and is gone after any fault.
 */
export class SandboxPool implements AsyncDisposable {
  readonly #node: string;
  readonly #ageMsMax: number;
  readonly #wrapper: Promise<HostWrapper>;
  readonly #hosts = new Set<GuestHost>();
  // number of a host that lives, which decides its user id → its end
  readonly #living = new Map<number, Promise<void>>();
  readonly #memory = new MemoryBudget(SANDBOX_LIMITS.allMemoryBytesMax);
  #isClosed = false;

  /**
   * @param options.node absolute path of the Node binary that hosts run on
   * @param options.ageMsMax from the first script of a host until it takes no more, milliseconds
   */
  constructor(options: { node?: string; ageMsMax?: number } = {}) {
    this.#node = options.node ?? process.execPath;
    this.#ageMsMax = options.ageMsMax ?? SANDBOX_LIMITS.hostAgeMsMax;
    this.#wrapper = confineHosts(this.#node);
    // Whoever needs a host hears of it.
    this.#wrapper.catch(() => undefined);
  }

  /** Starts a host ahead, so that the next script finds one. Never throws: `openGuest` will say why. */
  warm(): void {
    const isReady = [...this.#hosts].some((host) => host.hasRoom);
    if (this.#isClosed || isReady || this.#living.size >= SANDBOX_LIMITS.hostsMax) return;
    this.#startHost();
  }

  /** A guest that has run nothing. Throws `E_UNAVAILABLE` or `E_SANDBOX` when no host can be started. */
  async openGuest({ realm, alone }: GuestRequest): Promise<SandboxGuest> {
    const seat = await this.#openSeat(realm, alone);
    return new SandboxGuest(seat, {
      settle: (at, limits, signal) => this.#settle(at, limits, signal),
      leave: async (at, limits) => {
        await at.leave();
        if (limits !== undefined) this.#memory.give(memoryOf(limits));
      },
    });
  }

  /**
   * The value of a script's plain export, e.g. its `deployment`; undefined when there is none. Loads the
   * script but runs no default function and makes no call. Throws `E_SCRIPT_SYNTAX`, `E_SCRIPT` and the
   * codes of limits, with `where` in the source.
   */
  async readExport(source: string, name: string, signal: AbortSignal): Promise<Json | undefined> {
    const seat = await this.#openSeat(NO_REALM, false);
    try {
      const program = programToRead(source);
      const read = await seat.ask(
        { type: 'read-export', program, name },
        {
          timeoutMs: SANDBOX_LIMITS.readCpuMs + SANDBOX_LIMITS.killGraceMs,
          timeoutCode: 'E_CPU',
          answerBytesMax: 2 * SANDBOX_LIMITS.readOutputBytes + SANDBOX_LIMITS.readyBytesMax,
          signal,
        },
        (answer) => {
          if (answer.type === 'export' || answer.type === 'export-failure') return answer;
          throw new HyphaError('E_SANDBOX', 'the sandbox host sent no export');
        },
      );
      if (read.type === 'export-failure') throw toError(read.failure);
      return read.text === null ? undefined : (JSON.parse(read.text) as Json);
    } finally {
      void seat.leave();
    }
  }

  /** Ends every host, also those with a script in them, and waits until they are gone. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#hosts].map((host) => host.stop(closed())));
    await Promise.all(this.#living.values());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #openSeat(realm: string, isAlone: boolean): Promise<Seat> {
    if (this.#isClosed) throw closed();
    const host = this.#findHost(realm, isAlone) ?? this.#startHost();
    const seat = host.sit(realm, isAlone);
    this.warm();
    try {
      await host.ready();
      return seat;
    } catch (error) {
      await seat.leave();
      throw error;
    }
  }

  /** The one with the fewest scripts in it, rather than one that has never had any. */
  #findHost(realm: string, isAlone: boolean): GuestHost | undefined {
    const isUsable = (host: GuestHost) =>
      host.hasRoom && (host.realm === undefined || (!isAlone && host.realm === realm));
    const order = (host: GuestHost) => (host.realm === undefined ? Infinity : host.guests);
    return [...this.#hosts].filter(isUsable).toSorted((a, b) => order(a) - order(b))[0];
  }

  async #settle(seat: Seat, limits: GuestLimits, signal: AbortSignal): Promise<Seat> {
    const bytes = memoryOf(limits);
    await this.#memory.take(bytes, signal);
    const isShareable =
      bytes <= SANDBOX_LIMITS.sharedMemoryBytesMax && limits.cpuMs <= SANDBOX_LIMITS.sharedCpuMsMax;
    if (isShareable || seat.host.isAlone) return seat;
    try {
      const own = await this.#openSeat(seat.host.realm ?? NO_REALM, true);
      void seat.leave();
      return own;
    } catch (error) {
      this.#memory.give(bytes);
      throw new GuestDisplaced(error);
    }
  }

  #startHost(): GuestHost {
    const numbers = Array.from({ length: SANDBOX_LIMITS.hostsMax }, (_, number) => number);
    const number = numbers.find((each) => !this.#living.has(each));
    if (number === undefined) {
      const message = `this process has ${SANDBOX_LIMITS.hostsMax} sandbox hosts already`;
      throw new HyphaError('E_UNAVAILABLE', message);
    }
    const starting = this.#wrapper.then((wrapper) =>
      SandboxHost.start(hostCommand(this.#node, wrapper, number)),
    );
    const ended = starting.then(
      (host) => host.exited,
      () => undefined,
    );
    this.#living.set(
      number,
      ended.then(() => void this.#living.delete(number)),
    );
    const options = { ageMsMax: this.#ageMsMax, onChange: (host: GuestHost) => this.#tidy(host) };
    const host = new GuestHost(starting, options);
    this.#hosts.add(host);
    return host;
  }

  /** Without the hosts that are of no use any more, and with one for whoever comes next. */
  #tidy(changed: GuestHost): void {
    if (changed.isGone) this.#hosts.delete(changed);
    const empty = [...this.#hosts].filter((host) => host.guests === 0);
    const kept = empty.includes(changed) && changed.hasRoom ? changed : empty.find(isOpen);
    for (const host of empty) if (host !== kept) void host.stop();
    // A host that was lost before it had a script would most likely be lost again.
    if (changed.realm !== undefined) this.warm();
  }
}

const isOpen = (host: GuestHost) => host.hasRoom;

function closed(): HyphaError {
  return new HyphaError('E_UNAVAILABLE', 'the sandbox is closed');
}

/** An instance never takes less than the engine was built to start with. */
function memoryOf({ memoryBytes }: GuestLimits): number {
  return Math.max(memoryBytes, SANDBOX_LIMITS.memoryBytesMin);
}

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
