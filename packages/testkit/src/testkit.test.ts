import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import {
  checkExtends,
  checkpointOrigin,
  fromHex,
  isHyphaError,
  parseJoinToken,
  verifyCheckpoint,
  verifyEnrolment,
  verifyInclusion,
  verifyScript,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { describe, expect, test } from 'vitest';
import {
  admitNode,
  badScripts,
  createFleet,
  enrolmentOf,
  findLeftovers,
  findPortBase,
  isReadableByAll,
  isRedisInstalled,
  joinTokenOf,
  openTempDir,
  SeededRandom,
  signedScript,
  startRedis,
  TestLog,
  waitFor,
} from './index.ts';

const nowSeconds = () => Math.floor(Date.now() / 1000);

describe('the builders', () => {
  const fleet = createFleet({ roots: 3, threshold: 2 });
  const node = admitNode(fleet);

  test('make a node whose enrolment holds', () => {
    const enrolment = verifyEnrolment(nodeVerifier, {
      envelope: enrolmentOf(node),
      authority: fleet.authority,
      profile: 'accept',
      nowSeconds: nowSeconds(),
    });
    expect(enrolment.node).toBe(node.id);
  });

  test('make a join token that reads back', () => {
    const urls = { ledger: 'http://127.0.0.1:1', coordinator: 'http://127.0.0.1:2' };
    const token = parseJoinToken(joinTokenOf(fleet, node, urls));
    expect(token).toMatchObject({ ...urls, genesis: fleet.authority.genesisHash });
  });

  test('make a script that is admitted', () => {
    const envelope = signedScript(fleet, { draft: { nodes: [node.id] } });
    const verified = verifyScript(nodeVerifier, {
      envelope,
      authority: fleet.authority,
      profile: 'admit',
      nowSeconds: nowSeconds(),
      node: { id: node.id, realms: node.realms },
    });
    expect(verified.payload.deployment).toBe('web');
  });

  test('make a log whose checkpoints and proofs hold, and forks of it that do not', async () => {
    const log = TestLog.of(fleet);
    const trusted = {
      origin: checkpointOrigin(fleet.authority.genesisHash),
      publicKey: fleet.ledgerKey.publicKey,
    };
    const read = (note: string) => verifyCheckpoint(nodeVerifier, note, trusted);
    const first = read(log.checkpoint());
    expect(first).toMatchObject({ size: 4, authority: { seq: 3, head: fleet.authority.head } });
    const fork = log.fork(2);
    const index = log.append(node.admission);
    const later = read(log.checkpoint({ time: first.time + 60 }));
    expect(later.time).toBe(first.time + 60);
    const { proof, ...place } = await log.inclusion(index);
    verifyInclusion(nodeVerifier, {
      ...place,
      leafHash: fromHex(place.leafHash),
      proof: proof.map(fromHex),
      root: fromHex(later.root),
    });
    const consistency = await log.consistency(first.size);
    checkExtends(nodeVerifier, first, later, consistency.proof);
    for (let n = 0; n < 3; n++) fork.append(node.admission);
    const forked = read(fork.checkpoint());
    expect(forked).toMatchObject({ size: 5, authority: { seq: 1 } });
    expect(() => checkExtends(nodeVerifier, first, forked, consistency.proof)).toThrow(
      expect.objectContaining({ code: 'E_LOG_FORK' }),
    );
  });

  test.for(badScripts(fleet, { draft: { nodes: [node.id] } }))(
    'make a script with $name that gets $code',
    ({ body, code }) => {
      let actual = 'none';
      try {
        const text = new TextDecoder().decode(body);
        // What a service does: the envelope of the body, byte for byte.
        const raw = text.replace(/^\{"envelope":/, '').replace(/\}$/, '');
        verifyScript(nodeVerifier, {
          envelope: new TextEncoder().encode(raw),
          authority: fleet.authority,
          profile: 'admit',
          nowSeconds: nowSeconds(),
        });
      } catch (error) {
        if (!isHyphaError(error)) throw error;
        actual = error.code;
      }
      expect(actual).toBe(code);
    },
  );
});

describe('waiting', () => {
  test('ends with the first truthy value', async () => {
    let count = 0;
    expect(await waitFor(() => (++count === 3 ? 'three' : undefined))).toBe('three');
  });

  test('outlasts a condition that throws, and shows what it threw when time is up', async () => {
    let count = 0;
    await waitFor(() => {
      if (++count < 3) throw new Error('not yet');
      return true;
    });
    const cause = new Error('never');
    const waiting = waitFor(() => Promise.reject(cause), { timeoutMs: 20, what: 'it' });
    await expect(waiting).rejects.toMatchObject({ message: 'waited 20 ms in vain for it', cause });
  });
});

describe('ports', () => {
  test('are free, all of them', async () => {
    const base = await findPortBase(3);
    for (const port of [base, base + 1, base + 2]) {
      const server = createServer().listen(port, '127.0.0.1');
      await once(server, 'listening');
      server.close();
      await once(server, 'close');
    }
  });
});

describe('a folder', () => {
  test('is gone at the end of its scope with all that is in it', async () => {
    let kept = '';
    {
      await using folder = await openTempDir();
      kept = folder.path;
      mkdirSync(join(kept, 'a'));
      writeFileSync(join(kept, 'a/b'), 'x');
      symlinkSync('/etc', join(kept, 'link'));
      expect(existsSync(kept)).toBe(true);
    }
    expect(existsSync(kept)).toBe(false);
    expect(existsSync('/etc/passwd')).toBe(true);
  });
});

describe('the leftover probe', () => {
  test('names a process that runs from a state folder, and not after it ended', async () => {
    await using folder = await openTempDir();
    const child = spawn('/bin/sleep', ['60'], { cwd: folder.path, stdio: 'ignore' });
    try {
      await once(child, 'spawn');
      const found = await waitFor(async () => {
        const left = await findLeftovers({ paths: [folder.path] });
        return left.length > 0 && left;
      });
      expect(found).toEqual([`process ${child.pid}: /bin/sleep 60`]);
    } finally {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    expect(await findLeftovers({ paths: [folder.path] })).toEqual([]);
  });

  test('names links by the expression it is given', async () => {
    const found = await findLeftovers({ paths: [], names: /^lo$/ });
    expect(found).toContain('network link lo');
  });

  test('names what is mounted below a folder', async () => {
    expect(await findLeftovers({ paths: ['/proc'] })).toContainEqual(
      expect.stringMatching(/^mount \/proc \(proc from /),
    );
  });
});

test('a file is readable by all when its folders let all in', async () => {
  await using folder = await openTempDir();
  const file = join(folder.path, 'file');
  writeFileSync(file, '');
  chmodSync(file, 0o644);
  chmodSync(folder.path, 0o711);
  expect(isReadableByAll(file)).toBe(true);
  chmodSync(folder.path, 0o700);
  expect(isReadableByAll(file)).toBe(false);
  chmodSync(folder.path, 0o711);
  chmodSync(file, 0o640);
  expect(isReadableByAll(file)).toBe(false);
});

const redisInstalled = await isRedisInstalled();

describe.skipIf(!redisInstalled)('a throw-away Redis', () => {
  test('keeps what it acknowledged through a stop and through a kill, and leaves nothing', async () => {
    let socket = '';
    {
      await using redis = await startRedis();
      socket = redis.socket;
      await redis.call('SET', 'a', '1');
      await redis.stop();
      await expect(redis.call('GET', 'a')).rejects.toThrow();
      await redis.start();
      expect(await redis.call('GET', 'a')).toBe('1');
      await redis.call('SET', 'a', '2');
      await redis.kill();
      await redis.start();
      expect(await redis.call('GET', 'a')).toBe('2');
    }
    expect(existsSync(socket)).toBe(false);
  });

  test('shares nothing with another', async () => {
    await using one = await startRedis();
    await using other = await startRedis();
    await one.call('SET', 'a', '1');
    expect(await other.call('GET', 'a')).toBeNull();
    expect(other.pid).not.toBe(one.pid);
  });
});

test('draws the same for the same seed, and each fork its own', () => {
  const draw = (random: SeededRandom) => Array.from({ length: 50 }, () => random.int(1, 6));
  const [one, other] = [new SeededRandom(7), new SeededRandom(7)];
  expect(draw(one)).toEqual(draw(other));
  expect(draw(one.fork())).not.toEqual(draw(one));
  expect(draw(new SeededRandom(8))).not.toEqual(draw(new SeededRandom(7)));
  expect(new Set(draw(one))).toEqual(new Set([1, 2, 3, 4, 5, 6]));
});
