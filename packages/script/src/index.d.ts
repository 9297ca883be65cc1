/**
 * What a deployment script can use: module `hypha`.
 *
 * A script is a TypeScript or JavaScript module. Its default function is called once with the signed input
 * and says, step by step, what has to exist. Every call below that returns a promise is a step: it is
 * written to the node's journal before and after it happens, so after a crash the script runs again from the
 * top, gets the recorded results, and goes on at the first step without one. That is why a script sees no
 * clock but `now()`, no files, no network and no real randomness: `Math.random` gives the same numbers every time, and
 * `Date`, timers and `eval` are not there. Branch on inputs and on results of steps only.
 *
 * Steps that do not wait for each other run at once: start them and await them together, `Promise.all`. Those on
 * one resource take their turns in the order they were made.
 *
 * Await every step, or handle its failure: a failed step that nobody looks at fails the run. (What an `async`
 * function of your own throws is only seen if you await that function.)
 *
 * A run that fails undoes what it did, in reverse order, and leaves data alone that was there before.
 */

/** Bytes, or text with a unit: `'512MiB'`, `'1.5GiB'`, `'10GB'`. */
export type Size =
  | number
  | `${number}${'B' | 'KiB' | 'MiB' | 'GiB' | 'TiB' | 'kB' | 'MB' | 'GB' | 'TB'}`;

/** Milliseconds, or text with a unit: `'500ms'`, `'30s'`, `'5m'`, `'1h'`. */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h'}`;

/** A `Duration`, or text in days: `'2d'`. */
export type Wait = Duration | `${number}d`;

/** From the root, without `.` and `..` in it. */
export type AbsolutePath = `/${string}`;

export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json };

/**
 * Storage that belongs to the deployment. It outlives its containers and runs: a later revision that no
 * longer declares it keeps the data, until an operator signs that it may go.
 */
export interface Volume {
  readonly kind: 'volume';
  readonly name: string;
  readonly sizeBytes: number;
  /** True on a node that only pretends: nothing was stored. */
  readonly simulated: boolean;
  /**
   * Keeps the content as it is now under a name, read-only and at once. One of that name that exists stays
   * as it is.
   */
  snapshot(name: string): Promise<Snapshot>;
  /**
   * Declares another volume that starts with this content, at once and without copying it. Its size is
   * this one's unless `spec` says otherwise.
   */
  clone(name: string, spec?: Partial<Omit<VolumeSpec, 'cloneOf'>>): Promise<Volume>;
}

export interface VolumeSpec {
  /** What it may hold. */
  size: Size;
  /** Take a snapshot before this run changes anything, and bring it back if the run fails. */
  snapshotBefore?: boolean;
  /** Start with the content of another volume of this deployment. */
  cloneOf?: Volume;
}

export interface Snapshot {
  readonly name: string;
  readonly simulated: boolean;
}

/** A running container with an address of its own. */
export interface Container {
  readonly kind: 'container';
  readonly name: string;
  /** IPv6 address, the same for as long as the deployment declares this name on this node. */
  readonly address: string;
  /** True on a node that only pretends: nothing runs. */
  readonly simulated: boolean;
  /**
   * Runs a command in it and resolves when it has ended, whatever its exit code. It is never undone. If the
   * node goes down in the middle, nobody knows whether it ran: the run then fails with
   * `E_UNKNOWN_OUTCOME`, unless `idempotent` says that it may run again.
   */
  exec(command: readonly [string, ...string[]], options?: ExecOptions): Promise<ExecResult>;
  /** `http://[address]:port/`; port 80 is left out. `path` defaults to `/`. */
  url(port: number, path?: string): string;
}

export interface ContainerSpec {
  /** `'oci:/path/to/layout:tag'`, or `'registry/repository@sha256:…'`. */
  image: string;
  /** Program and arguments, in place of the image's own. */
  command?: readonly [string, ...string[]];
  /** A secret is better in `files`: every process of the container inherits variables, and tools print them. */
  env?: Readonly<Record<string, string | Secret>>;
  /** Where the program starts; default: the image's. */
  workdir?: AbsolutePath;
  /** `'uid'` or `'uid:gid'`, numbers; default: the image's. */
  user?: `${number}` | `${number}:${number}`;
  /** What it may use before it is stopped; default 128 MiB, at least 4 MiB. */
  memory?: Size;
  /** Cores; default 0.5, at least 0.01. */
  cpus?: number;
  /** Processes and threads; default 256. */
  pids?: number;
  /** Where → volume. */
  mounts?: Readonly<Record<AbsolutePath, Volume>>;
  /** Path → text of a file, or a secret: read-only in the container and never on a disk. At most 64 KiB each. */
  files?: Readonly<Record<AbsolutePath, string | Secret>>;
  /** Nothing but `mounts` can be written; default false. */
  readonly?: boolean;
  /** The step ends when this holds, and fails with `E_HEALTH` when it does not in time. */
  health?: Health;
  /** Whether the node starts it again when it ends; default `'always'`. */
  restart?: 'always' | 'on-failure' | 'never';
}

/** All that are given have to hold. */
export interface Health {
  /** A GET to the container that is answered with 2xx or 3xx. `path` defaults to `/`. */
  http?: { port: number; path?: AbsolutePath };
  /** A port that accepts connections. */
  tcp?: { port: number };
  /** A command in the container that ends with exit code 0. */
  exec?: readonly [string, ...string[]];
  /** Default 30 s. */
  within?: Duration;
}

export interface ExecOptions {
  /** Until it is killed and the step fails; default 60 s, at most 1 h. */
  timeout?: Duration;
  /** Running it twice does no harm. */
  idempotent?: boolean;
}

export interface ExecResult {
  readonly exitCode: number;
  /** The last 64 KiB. */
  readonly stdout: string;
  /** The last 64 KiB. */
  readonly stderr: string;
  readonly simulated: boolean;
}

export declare const volume: {
  /**
   * Declares a volume: creates it, grows it, or finds it as it should be. Names are lower-case letters, digits
   * and inner dashes, at most 63, and belong to the deployment.
   */
  (name: string, spec: VolumeSpec): Promise<Volume>;
  /** A volume that the deployment has, as it is. Throws `E_NOT_FOUND` when it has none of that name. */
  get(name: string): Promise<Volume>;
};

export declare const container: {
  /**
   * Declares a container: creates it, replaces it when its spec or image changed, or finds it as it should be.
   * Resolves when it runs and is healthy. While it is replaced, the old one is kept aside until the whole run
   * has succeeded.
   */
  (name: string, spec: ContainerSpec): Promise<Container>;
  /** A container that the deployment has, as it is. Throws `E_NOT_FOUND` when it has none of that name. */
  get(name: string): Promise<Container>;
};

/**
 * The name of a secret, opaque: the value is sealed to the node and never comes into a script, a journal or a log.
 * Pass it alone as a value of `files` or `env`. It is named in `deployment.secrets` and given when the script is
 * applied, `--secret token=env:TOKEN`. A changed value replaces the containers that use it, the same one sealed
 * again does not.
 */
export interface Secret {
  readonly kind: 'secret';
  readonly name: string;
}

/** Names of secrets are like those of resources. One that was not given fails the step that uses it: `E_SECRET`. */
export function secret(name: string): Secret;

/** A line in the run's journal: `hypha run events`. Handles may be among the fields. */
export function log(message: string, fields?: Readonly<Record<string, unknown>>): void;

/**
 * Epoch milliseconds: when the run began, or when the last step that the script has the result of ended. Stands
 * still in between and never goes back, and is the same however often the script is run again.
 */
export function now(): number;

/** Waits. A run that does nothing else for long holds no process and takes no memory of the node. */
export function sleep(duration: Wait): Promise<void>;

/**
 * Calls `check` until it answers with something true, and resolves with that. The steps in it are steps like any
 * other. What it throws ends the wait; when the time is over it is `E_TIMEOUT`, after a last look.
 *
 * @param label what it waits for, to be shown meanwhile
 */
export function waitFor<T>(
  label: string,
  check: () => T | Promise<T>,
  options?: WaitOptions,
): Promise<Exclude<T, false | null | undefined | 0 | ''>>;

export interface WaitOptions {
  /** From one answer to the next call; default 5 s. */
  every?: Wait;
  /** Default 10 min. */
  timeout?: Wait;
}

/**
 * Undoes what a failed run of this deployment left, one that was signed to be kept: newest step first. The
 * capabilities of its steps have to be signed for this script too. Throws `E_NOT_FOUND` for any other run,
 * `E_TOO_LATE` when the deployment was changed since. For a script that is run as a task: `hypha run undo`.
 */
export function undo(run: string): Promise<Undone>;

export interface Undone {
  /** Steps. */
  readonly undone: number;
  /** What could not be undone, and why. */
  readonly leftovers: readonly {
    readonly kind: string | null;
    readonly name: string | null;
    readonly reason: string;
  }[];
}

/** The node that the script runs for. */
export const node: {
  readonly id: string;
  readonly name: string;
  /** As its admission says. */
  readonly labels: Readonly<Record<string, string>>;
};

/** What a failed step throws. `code` is stable: `E_IMAGE`, `E_HEALTH`, …; `hypha explain CODE`. */
export class HyphaError extends Error {
  constructor(code: string, message: string);
  readonly code: string;
}

/**
 * `export const deployment = {…} satisfies Deployment`: data about the script that is read, and shown, before
 * it is signed. The command line can override name and realm.
 */
export interface Deployment {
  name?: string;
  /** Default: `default`. */
  realm?: string;
  /** What the default function gets: name → type, or type with default and bounds. */
  input?: Readonly<Record<string, InputType | Input>>;
  /** Names for `secret(name)`: each has to be given when the script is applied. At most 64. */
  secrets?: readonly string[];
}

/** `image` is a text that names an image, as in `ContainerSpec.image`. */
export type InputType = 'string' | 'image' | 'int' | 'bool';

export type Input =
  | { readonly type: 'string' | 'image'; readonly default?: string }
  | {
      readonly type: 'int';
      readonly default?: number;
      readonly min?: number;
      readonly max?: number;
    }
  | { readonly type: 'bool'; readonly default?: boolean };
