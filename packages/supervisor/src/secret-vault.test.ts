import { type NodeKeys, openNodeKeys } from '@hypha/identity';
import { base64, isHyphaError, type ScriptPayload, sealSecrets } from '@hypha/protocol';
import { openTempDir } from '@hypha/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SecretVault } from './secret-vault.ts';
import { LIMITS } from './supervisor-limits.ts';
import {
  admissionOf,
  committed,
  desiredOf,
  finished,
  intent,
  JournalWorld,
  result,
  silentLog,
  started,
} from './testing/journal-world.ts';

const WEB = { realm: 'default', deployment: 'web' };
const DAY_MS = 86_400_000;
const signal = new AbortController().signal;

/** Files in memory. */
class MemoryFolder {
  readonly files = new Map<string, string>();

  async find(version: string) {
    return this.files.has(version) ? `/run/secrets/${version}` : undefined;
  }

  async write(version: string, bytes: Uint8Array) {
    this.files.set(version, Buffer.from(bytes).toString());
    return `/run/secrets/${version}`;
  }

  async keepOnly(versions: ReadonlySet<string>) {
    for (const name of this.files.keys()) if (!versions.has(name)) this.files.delete(name);
  }

  async remove() {
    this.files.clear();
  }
}

let world: JournalWorld;
let keys: NodeKeys;
let folder: MemoryFolder;
let vault: SecretVault;
let clock: { wallMs: number; monotonicMs: number };
let temp: Awaited<ReturnType<typeof openTempDir>>;
beforeEach(async () => {
  world = await JournalWorld.open();
  temp = await openTempDir();
  clock = { wallMs: 1_800_000_000_000, monotonicMs: 0 };
  keys = await openNodeKeys(temp.path, () => clock.wallMs);
  folder = new MemoryFolder();
  vault = openVault();
});
afterEach(async () => {
  await world[Symbol.asyncDispose]();
  await temp[Symbol.asyncDispose]();
});

function openVault(): SecretVault {
  const opened = new SecretVault({
    keys,
    folder,
    log: silentLog,
    sealKeyAgeMs: 30 * DAY_MS,
    clock: {
      nowMs: () => clock.wallMs,
      monotonicMs: () => clock.monotonicMs,
      jitter: () => 0,
      sleep: async () => undefined,
    },
  });
  opened.attach(world.journal);
  return opened;
}

function payloadWith(secrets: Record<string, string | null>, sealKey = keys.sealKeys.current) {
  const { payload } = admissionOf();
  const { id, realm } = payload;
  const context = { id, realm, node: keys.nodeId };
  const randomBytes = (count: number) => crypto.getRandomValues(new Uint8Array(count));
  const box = sealSecrets(secrets, { context, sealKey, randomBytes });
  return { ...payload, secrets: { [keys.nodeId]: box } };
}

type Versions = { readonly token?: string; readonly other?: string };

/** Answers name → version. */
async function take(
  secrets: Record<string, string | null>,
): Promise<{ run: string; versions: Versions }> {
  const admission = admissionOf();
  await world.journal.admit({ ...admission, secrets: vault.take(payloadWith(secrets)) });
  return { run: admission.run, versions: await world.journal.secrets.readGiven(admission.run) };
}

async function read(secret: string, version = ''): Promise<string | undefined> {
  const files = await vault.provide(WEB, [{ secret, version }], signal);
  expect(files.get(version)).toBe(`/run/secrets/${version}`);
  return folder.files.get(version);
}

/** The run commits a container whose record names the value. */
async function use(run: string, version: string): Promise<void> {
  const spec = { files: { '/t': { secret: 'token', version } } };
  const web = { ...desiredOf('container', 'web'), spec };
  await world.journal.claim(run, { runner: 'r1', epoch: 1, bootId: 'boot-1' });
  await world.fixture.append(run, [started(), intent(1, web), result(1), committed(web)]);
  await world.journal.append(run, { by: 'supervisor' }, [finished('succeeded')]);
}

async function sweepLater(ms: number): Promise<void> {
  clock.wallMs += ms;
  clock.monotonicMs += Math.max(ms, LIMITS.secretsTendMs);
  await vault.sweep();
}

describe('a vault', () => {
  test('gives containers what was sealed, and keeps it sealed', async () => {
    const { versions } = await take({ token: 'grüß dich\n', other: 'more' });
    expect(await read('token', versions.token)).toBe('grüß dich\n');
    expect(await read('other', versions.other)).toBe('more');
    const rows = JSON.stringify(await world.journal.secrets.listSealedElsewhere('', 10));
    expect(rows).toContain(base64(keys.sealKeys.current));
    for (const text of ['dich', 'more']) {
      expect(rows).not.toContain(text);
      expect(rows).not.toContain(Buffer.from(text).toString('base64'));
    }
  });

  test('gives the same after a restart, from its own box', async () => {
    const { versions } = await take({ token: 'hush' });
    folder.files.clear();
    keys = await openNodeKeys(temp.path, () => clock.wallMs);
    await world.fixture.reopen();
    vault = openVault();
    expect(await read('token', versions.token)).toBe('hush');
  });

  test('knows a value sealed again for the same, and keeps one on request', async () => {
    const first = await take({ token: 'hush' });
    expect((await take({ token: 'hush' })).versions).toEqual(first.versions);
    expect((await take({ token: null })).versions).toEqual(first.versions);
    expect((await take({ token: 'hush!' })).versions).not.toEqual(first.versions);
  });

  test('has nothing for an envelope without a box for this node', () => {
    expect(vault.take({ ...payloadWith({ token: 'hush' }), secrets: {} })).toEqual([]);
  });

  test.for([
    ['another envelope', { id: 'rev_0193a000-0000-7000-8000-00000000ffff' }],
    ['another realm', { realm: 'lab' }],
  ] as const)('refuses a box moved to %s, and says nothing of it', ([, change]) => {
    const refusal = refusalOf({ ...payloadWith({ token: 'hunter2' }), ...change });
    expect(refusal).toMatch(/sealed for another/);
    expect(refusal).not.toContain('hunter2');
  });

  test('refuses a box for another node', () => {
    const stranger = crypto.getRandomValues(new Uint8Array(32));
    expect(refusalOf(payloadWith({ token: 'hunter2' }, stranger))).toMatch(/not sealed to this/);
  });

  test('gives nothing of one deployment to another', async () => {
    const { versions } = await take({ token: 'hush' });
    const ref = { secret: 'token', version: versions.token ?? '' };
    for (const owner of [
      { ...WEB, deployment: 'api' },
      { ...WEB, realm: 'lab' },
    ]) {
      await expect(vault.provide(owner, [ref], signal)).rejects.toMatchObject({ code: 'E_SECRET' });
    }
    expect(folder.files.size).toBe(0);
  });

  test('refuses a stored box that was given another name', async () => {
    const { versions } = await take({ token: 'hunter2', other: 'more' });
    const rows = await world.journal.secrets.listSealedElsewhere('', 10);
    const box = rows.find(({ name }) => name === 'token')?.box ?? '';
    const victim = rows.flatMap((row) => (row.name === 'other' ? [{ ...row, box }] : []));
    await world.journal.secrets.reseal(victim);
    const ref = { secret: 'other', version: versions.other ?? '' };
    await expect(vault.provide(WEB, [ref], signal)).rejects.toMatchObject({ code: 'E_SECRET' });
  });

  test('takes plaintext away when no record names it any more', async () => {
    const first = await take({ token: 'one' });
    await read('token', first.versions.token);
    await use(first.run, first.versions.token ?? '');
    await vault.sweep();
    expect([...folder.files.values()]).toEqual(['one']);
    const second = await take({ token: 'two' });
    await read('token', second.versions.token);
    await use(second.run, second.versions.token ?? '');
    await vault.sweep();
    expect([...folder.files.values()]).toEqual(['two']);
    await vault.close('stop');
    expect(folder.files.size).toBe(0);
  });
});

describe('the sealing key', () => {
  test('is changed when it is old, and stored values are sealed to the new one', async () => {
    const { versions } = await take({ token: 'hush' });
    const before = keys.sealKeys.current;
    await sweepLater(30 * DAY_MS - 1);
    expect(keys.sealKeys.current).toEqual(before);
    await sweepLater(1);
    expect(keys.sealKeys.current).not.toEqual(before);
    const current = base64(keys.sealKeys.current);
    expect(await world.journal.secrets.listSealedElsewhere(current, 10)).toEqual([]);
    expect(await read('token', versions.token)).toBe('hush');
  });

  test('before is good for a day after the ledger knows the new one, then it is destroyed', async () => {
    const { versions } = await take({ token: 'hush' });
    const before = keys.sealKeys.current;
    await sweepLater(30 * DAY_MS);
    await sweepLater(7 * DAY_MS);
    expect(keys.sealKeys.previous).toEqual(before);
    await keys.sealKeys.notePublished(keys.sealKeys.current);
    await sweepLater(DAY_MS);
    expect(vault.take(payloadWith({ token: 'late' }, before))).toHaveLength(1);
    await sweepLater(60_000);
    expect(keys.sealKeys.previous).toBeUndefined();
    expect(refusalOf(payloadWith({ token: 'too late' }, before))).toMatch(
      /not sealed to this node/,
    );
    expect(await read('token', versions.token)).toBe('hush');
  });

  test('before goes only when nothing stored needs it', async () => {
    const { versions } = await take({ token: 'hush' });
    // As a crash leaves it: changed, and nothing sealed again yet.
    await keys.sealKeys.rotateSealKey();
    await keys.sealKeys.notePublished(keys.sealKeys.current);
    await sweepLater(2 * DAY_MS);
    expect(keys.sealKeys.previous).toBeUndefined();
    expect(await read('token', versions.token)).toBe('hush');
  });
});

function refusalOf(payload: ScriptPayload): string {
  try {
    vault.take(payload);
  } catch (error) {
    if (!isHyphaError(error, 'E_SECRET')) throw error;
    const { message, hint, details, stack, cause } = error;
    return JSON.stringify({ message, hint, details, stack, cause });
  }
  throw new Error('was not refused');
}
