// Module 'hypha' as a script sees it, run inside the guest before the script. Nothing here protects the
// host: a script can break all of it and reaches only itself. The host checks what comes out.

const { facts, call, log: writeLog, end, bind } = globalThis.$host;
delete globalThis.$host;
const { parse, stringify } = JSON;
const { node: nodeFacts, seed, input, nowMs: startedAtMs } = parse(facts);
let nowMs = startedAtMs;

// A script's path depends on its inputs and on recorded outcomes, on nothing else (design §10): no clock,
// no sight of the garbage collector, no code but the signed source.
for (const name of ['Date', 'WeakRef', 'FinalizationRegistry', 'SharedArrayBuffer', 'Atomics']) {
  delete globalThis[name];
}
for (const name of ['performance', 'queueMicrotask', 'eval', 'Function']) delete globalThis[name];
for (const sample of [() => {}, async () => {}, function* () {}, async function* () {}]) {
  Object.defineProperty(Object.getPrototypeOf(sample), 'constructor', {
    value: () => {
      throw new TypeError('text cannot be run as code in a deployment script');
    },
  });
}
Math.random = seededRandom(seed);

/** sfc32 over the first 128 bits of the seed; 53 bits a number. */
function seededRandom(hex) {
  const word = (at) => Number(`0x${hex.slice(at, at + 8)}`) | 0;
  let [a, b, c, d] = [word(0), word(8), word(16), word(24)];
  const next = () => {
    const sum = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let round = 0; round < 12; round++) next();
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}

let makeStepError;
let codeOf;

export class HyphaError extends Error {
  #ofStep = false;

  constructor(code, message) {
    super(message);
    this.name = 'HyphaError';
    this.code = code;
  }

  static {
    makeStepError = (code, message, stack) => {
      const error = new HyphaError(code, message);
      error.#ofStep = true;
      error.stack = stack;
      return error;
    };
    codeOf = (error) =>
      typeof error === 'object' && error !== null && #ofStep in error && error.#ofStep
        ? error.code
        : 'E_SCRIPT';
  }
}

// The engine has no hook for rejections that nobody handles, so the promises of steps keep count: one
// that was rejected and never looked at fails the run when the script ends. What `then` makes of a step
// is counted too; what an `async` function of the script makes of it is not ours to see.
const unhandled = new Map();

class StepPromise extends Promise {
  #isWatched = false;

  // What `super.then` makes must be plain, or each `then` would make one more of these.
  static get [Symbol.species]() {
    return Promise;
  }

  static watch(executor) {
    let failed = (_error) => {};
    const promise = new StepPromise((resolve, reject) => {
      failed = (error) => {
        if (!promise.#isWatched) unhandled.set(promise, error);
        reject(error);
      };
      executor(resolve, (error) => failed(error));
    });
    return promise;
  }

  // biome-ignore lint/suspicious/noThenProperty: a promise has one
  then(onFulfilled, onRejected) {
    this.#isWatched = true;
    unhandled.delete(this);
    const next = super.then(onFulfilled, onRejected);
    return StepPromise.watch((resolve, reject) => settled(next, resolve, reject));
  }
}

const settled = (promise, resolve, reject) => Reflect.apply(nativeThen, promise, [resolve, reject]);
const nativeThen = Promise.prototype.then;

const pending = new Map();
let isRunning = false;

/** One SAL call: numbered by the host at once, settled when its outcome is delivered. */
function step(verb, name, args, present) {
  // A rejection made later has no script on its stack: the place of the call is what helps.
  const place = new Error().stack;
  const answer = submit(verb, name, args, place);
  return StepPromise.watch((resolve, reject) => {
    if (typeof answer === 'number') pending.set(answer, { resolve, reject, place, present });
    // Not at once: a rejection from inside the executor would come before the promise can be watched.
    else settled(Promise.resolve(), () => reject(makeStepError(...answer, place)));
  });
}

/** The number of the call, or the code and message of why it is refused. */
function submit(verb, name, args, place) {
  if (!isRunning) {
    return ['E_SCRIPT', `${verb} runs inside the default function, not while loading`];
  }
  if (name !== null && typeof name !== 'string') {
    return ['E_ARGUMENT', `${verb}: the name is a string`];
  }
  let text;
  try {
    text = stringify(args);
  } catch (error) {
    return ['E_ARGUMENT', `${verb}: the arguments are not JSON: ${textOf(error)}`];
  }
  const answer = call(verb, name, text ?? 'null', place);
  if (answer === false) halt();
  return typeof answer === 'string' ? ['E_ARGUMENT', `${verb}: ${answer}`] : answer;
}

/**
 * The host has ended the script. It does so at an interrupt, and those come after so many turns of a loop:
 * an empty one gets there soonest. Not to be called from a promise's executor, which would swallow it.
 */
function halt() {
  for (;;) {}
}

function deliver(text) {
  const { call: number, ok, value, error, nowMs: deliveredAtMs } = parse(text);
  nowMs = deliveredAtMs;
  const waiting = pending.get(number);
  pending.delete(number);
  if (ok) waiting.resolve(waiting.present(value));
  else waiting.reject(makeStepError(error.code, error.message, waiting.place));
}

class Handle {
  constructor(value) {
    Object.assign(this, value);
    Object.freeze(this);
  }

  toJSON() {
    return { $rid: this.$rid, kind: this.kind, name: this.name };
  }
}

class Volume extends Handle {
  snapshot(name) {
    return step('volume.snapshot', this.name, { volume: this, name }, same);
  }

  clone(name, spec = {}) {
    return volume(name, { size: this.sizeBytes, ...spec, cloneOf: this });
  }
}

class Container extends Handle {
  exec(command, options = {}) {
    return step('container.exec', this.name, { ...options, container: this, command }, same);
  }

  url(port, path = '/') {
    const slash = path.startsWith('/') ? '' : '/';
    return `http://[${this.address}]${port === 80 ? '' : `:${port}`}${slash}${path}`;
  }
}

const same = (value) => value;

const toVolume = (value) => new Volume(value);
const toContainer = (value) => new Container(value);

export function volume(name, spec) {
  return step('volume.ensure', name, spec, toVolume);
}
volume.get = (name) => step('volume.get', name, {}, toVolume);

export function container(name, spec) {
  return step('container.ensure', name, spec, toContainer);
}
container.get = (name) => step('container.get', name, {}, toContainer);

/** A name, never a value: the node puts that where the name is passed. */
class Secret {
  constructor(name) {
    this.kind = 'secret';
    this.name = name;
    Object.freeze(this);
  }

  toJSON() {
    return { $secret: this.name };
  }

  [Symbol.toPrimitive]() {
    throw new HyphaError(
      'E_SECRET',
      `secret ${this.name} has no text in a script: pass it alone, as a value of files or env`,
    );
  }
}

export function secret(name) {
  if (typeof name !== 'string') throw new HyphaError('E_ARGUMENT', 'secret: the name is a string');
  return new Secret(name);
}

export function log(message, fields = {}) {
  const refused = writeLog(`${message}`, stringify(fields) ?? 'null');
  if (refused === false) halt();
  if (typeof refused === 'string') throw new HyphaError('E_ARGUMENT', `log: ${refused}`);
}

export const node = Object.freeze({ ...nodeFacts, labels: Object.freeze(nodeFacts.labels) });

export function now() {
  return nowMs;
}

export function sleep(duration) {
  return step('sleep', null, { duration }, nothing);
}

const nothing = () => undefined;

export function waitFor(label, check, { every = '5s', timeout = '10m' } = {}) {
  const place = new Error().stack;
  if (typeof label !== 'string' || typeof check !== 'function') {
    throw new HyphaError('E_ARGUMENT', 'waitFor: takes a label and a function');
  }
  const waited = waitUntil({ label, check, every, timeout, place });
  return StepPromise.watch((resolve, reject) => settled(waited, resolve, reject));
}

async function waitUntil({ label, check, every, timeout, place }) {
  const { everyMs, untilMs } = await step('waitFor', null, { label, every, timeout }, same);
  for (;;) {
    const value = await check();
    if (value) return value;
    if (nowMs >= untilMs) {
      throw makeStepError('E_TIMEOUT', `waited for ${label} until the time was over`, place);
    }
    const next = Math.min(nowMs + everyMs, untilMs);
    await step('sleep', null, { untilMs: next, of: label }, nothing);
  }
}

/** Steps that the engine names at once. */
const KEPT_STEPS_MAX = 1000;

export async function undo(run) {
  const leftovers = [];
  let tried = 0;
  for (;;) {
    const kept = await step('run.kept', null, { run }, same);
    for (const { step: number, kind, name } of kept) {
      const { leftover } = await step('run.undo', null, { run, step: number }, same);
      if (leftover !== null) leftovers.push({ kind, name, reason: leftover });
    }
    tried += kept.length;
    if (kept.length < KEPT_STEPS_MAX) return { undone: tried - leftovers.length, leftovers };
  }
}

function textOf(error) {
  try {
    if (error === null || typeof error !== 'object') return `${error}`.slice(0, 1000);
    const name = `${error.name ?? ''}`;
    const message = `${error.message ?? ''}`.slice(0, 4000);
    const isPlain = name === '' || name === 'Error' || name === 'HyphaError';
    return isPlain ? message : `${name}: ${message}`;
  } catch {
    return 'a value that cannot be shown';
  }
}

function describe(error) {
  let [code, stack] = ['E_SCRIPT', ''];
  try {
    code = codeOf(error);
    if (error instanceof Error && typeof error.stack === 'string') stack = error.stack;
  } catch {
    // A hostile value: it is shown as far as it lets itself be shown.
  }
  const prefix = error instanceof Error ? '' : 'threw ';
  return stringify({ code: `${code}`, message: prefix + textOf(error), stack });
}

function returned(value) {
  try {
    return stringify(value);
  } catch (error) {
    // A cycle or a BigInt. Anything else was thrown by the script, or for its limits.
    if (!(error instanceof TypeError)) throw error;
    const { stack } = error;
    throw Object.assign(new TypeError(`the returned value is not JSON: ${error.message}`), {
      stack,
    });
  }
}

/** `loaded`: the script's namespace, or a promise of it when it awaits at top level. */
async function begin(loaded) {
  try {
    const { default: main } = await loaded;
    if (typeof main !== 'function') throw new TypeError('the script has no default function');
    isRunning = true;
    const value = await main(input);
    end(true, returned(value) ?? 'null');
  } catch (error) {
    end(false, describe(error));
  }
}

/** Of a step whose failure nobody handled; null when there is none. */
function firstUnhandled() {
  for (const error of unhandled.values()) return describe(error);
  return null;
}

/** JSON text of an export; undefined when there is none. */
function readExport(loaded, name) {
  if (loaded instanceof Promise) throw new TypeError('the script awaits something while loading');
  return stringify(loaded[name]);
}

bind(begin, deliver, firstUnhandled, describe, readExport);
