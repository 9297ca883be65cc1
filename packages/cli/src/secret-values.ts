/** Values of `--secret NAME=SOURCE`, read here and sealed before anything leaves this machine. Never shown. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { HyphaError, Name, SECRET_BYTES_MAX, type SecretValues } from '@hypha/protocol';

/** From start to end of a command that prints a secret: it may ask a person for a passphrase. */
const COMMAND_MS_MAX = 120_000;
const LINE_END_BYTES = 1;
const SOURCES = 'env:VARIABLE, file:PATH, cmd:COMMAND or keep';

type FindVariable = (name: string) => string | undefined;

/**
 * One value for each secret the script declares, and no other. `file:` is taken as it is; of what a command prints
 * one line end at the end goes, as in a shell's `$( )`.
 * @param given `NAME=SOURCE`
 * @param declared `deployment.secrets` of the script
 * @throws HyphaError `E_ARGUMENT` naming the secret, never its value
 */
export async function readSecretValues(
  given: readonly string[],
  declared: readonly string[],
  findVariable: FindVariable,
): Promise<SecretValues> {
  const sources = parseSources(given, declared);
  const values: Record<string, string | null> = {};
  // One after another: two that ask for a passphrase would mix up.
  for (const [name, source] of sources) values[name] = await readSource(name, source, findVariable);
  return values;
}

function parseSources(
  given: readonly string[],
  declared: readonly string[],
): ReadonlyMap<string, string> {
  const sources = new Map<string, string>();
  for (const [index, pair] of given.entries()) {
    const at = pair.indexOf('=');
    const name = pair.slice(0, Math.max(at, 0));
    // Not quoted: it may be the value itself, by mistake.
    if (!Name.safeParse(name).success) {
      throw refuse(`--secret number ${index + 1} is not NAME=SOURCE`, `SOURCE is ${SOURCES}`);
    }
    if (sources.has(name)) throw refuse(`secret ${name} is given twice`);
    if (!declared.includes(name)) {
      const names = declared.length === 0 ? 'none' : declared.join(', ');
      throw refuse(
        `the script declares no secret ${name}; it declares ${names}`,
        `export const deployment = { secrets: ['${name}'] }`,
      );
    }
    sources.set(name, pair.slice(at + 1));
  }
  const missing = declared.find((name) => !sources.has(name));
  if (missing === undefined) return sources;
  throw refuse(
    `secret ${missing} is missing`,
    `give it: --secret ${missing}=env:VARIABLE, or ${missing}=keep for the one the nodes have`,
  );
}

async function readSource(
  name: string,
  source: string,
  findVariable: FindVariable,
): Promise<string | null> {
  if (source === 'keep') return null;
  const at = source.indexOf(':');
  const [kind, from] = [source.slice(0, Math.max(at, 0)), source.slice(at + 1)];
  switch (kind) {
    case 'env': {
      const text = findVariable(from);
      if (text === undefined) throw refuse(`secret ${name}: the variable ${from} is not set`);
      return checked(name, Buffer.from(text));
    }
    case 'file':
      return checked(name, await readBounded(from));
    case 'cmd':
      return checked(name, withoutLineEnd(await readCommand(name, from)));
    default:
      throw refuse(`secret ${name}: unknown source`, `a source is ${SOURCES}`);
  }
}

/** One byte more than allowed is enough to know; a device has no end. */
async function readBounded(path: string): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const bytes = Buffer.alloc(SECRET_BYTES_MAX + 1);
    let length = 0;
    while (length < bytes.length) {
      const { bytesRead } = await file.read(bytes, length, bytes.length - length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return bytes.subarray(0, length);
  } finally {
    await file.close();
  }
}

/** By `/bin/sh`, on this terminal, so that it can ask. */
async function readCommand(name: string, command: string): Promise<Buffer> {
  const child = spawn('/bin/sh', ['-c', command], { stdio: ['inherit', 'pipe', 'inherit'] });
  const chunks: Buffer[] = [];
  let length = 0;
  // What the shell started may outlive it: nobody reads from that any more.
  const stop = () => {
    child.kill('SIGKILL');
    child.stdout.destroy();
  };
  child.stdout.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    length += chunk.length;
    if (length > SECRET_BYTES_MAX + LINE_END_BYTES) stop();
  });
  const timer = setTimeout(stop, COMMAND_MS_MAX);
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  clearTimeout(timer);
  const printed = Buffer.concat(chunks);
  for (const chunk of chunks) chunk.fill(0);
  if (code === 0 || length > SECRET_BYTES_MAX) return printed;
  printed.fill(0);
  throw refuse(
    `secret ${name}: its command ended with ${code ?? signal}`,
    `it has ${COMMAND_MS_MAX / 1000} s and must exit with 0`,
  );
}

function withoutLineEnd(bytes: Buffer): Buffer {
  return bytes.at(-1) === 0x0a ? bytes.subarray(0, -LINE_END_BYTES) : bytes;
}

/** As text; the bytes are overwritten. */
function checked(name: string, bytes: Buffer): string {
  try {
    if (bytes.length > SECRET_BYTES_MAX) throw tooLong(name);
    const text = decode(name, bytes);
    if (text.includes('\0')) throw notText(name);
    if (text === '') throw refuse(`secret ${name} is empty`);
    return text;
  } finally {
    bytes.fill(0);
  }
}

function decode(name: string, bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw notText(name);
  }
}

function notText(name: string): HyphaError {
  return refuse(
    `secret ${name} is not text: a secret is UTF-8 without NUL`,
    `--secret ${name}=cmd:'base64 FILE', and decode it in the container`,
  );
}

function tooLong(name: string): HyphaError {
  return refuse(`secret ${name} is over ${SECRET_BYTES_MAX / 1024} KiB`, 'put it in a volume');
}

function refuse(message: string, hint?: string): HyphaError {
  return new HyphaError('E_ARGUMENT', message, {
    where: { path: '--secret' },
    ...(hint === undefined ? {} : { hint }),
  });
}
