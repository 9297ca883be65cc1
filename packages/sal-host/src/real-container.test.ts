import { access, mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ResourceRecord, Sal } from '@hypha/sal';
import {
  applyWhole,
  type ContractCall,
  contractContext,
  contractRef,
  contractRid,
  getVerb,
  recordOf,
} from '@hypha/sal/contract';
import { buildBusyboxImage, findImageLack } from '@hypha/sal-container/testing';
import { expect, onTestFinished, type TestContext, test, vi } from 'vitest';
import { detectMachine } from './machine.ts';
import { type OpenSals, openSals } from './open-sals.ts';
import { SalConfig } from './sal-config.ts';

const machine = await detectMachine(AbortSignal.timeout(30_000));
const lacking = machine.container.works ? await findImageLack() : 'needs root, btrfs and runc';
const node = `node_${'c'.repeat(32)}`;

function signal(): AbortSignal {
  return AbortSignal.timeout(60_000);
}

function salOf({ sals }: OpenSals, kind: string): Sal {
  const sal = sals.list.find((candidate) => candidate.kind === kind);
  if (sal === undefined) throw new Error(`no ${kind}`);
  return sal;
}

function get(address: string, path: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const call = request({ host: address, port: 80, path, family: 6 }, async (answer) => {
    resolve((await Array.fromAsync(answer.setEncoding('utf8'))).join(''));
  });
  call.on('error', reject).end();
  return promise;
}

/** A state folder with an image beside it. What `records` tell of is removed in the end. */
async function createPlace(context: TestContext) {
  if (lacking !== undefined) context.skip(lacking);
  const folder = await mkdtemp(join(tmpdir(), 'hypha-node-'));
  const config = SalConfig.parse({ folder: join(folder, 'sals'), poolBytes: 512 * 1024 ** 2 });
  const files = { '/www/index.html': 'from the image\n' };
  const image = await buildBusyboxImage({ folder: join(folder, 'image'), tag: 'web', files });
  const open = () => openSals(config, { role: 'owner', node, nowMs: () => 0, signal: signal() });
  const records: ResourceRecord[] = [];
  onTestFinished(async () => {
    const last = await open();
    for (const record of records) {
      await last.sals.findKind(record.kind)?.remove(record, { deleteData: true, signal: signal() });
    }
    await last.close(signal());
    await rm(folder, { recursive: true });
  });
  return { folder, image, records, open };
}

/** A step of a run that has not committed. */
async function openStep(sal: Sal, call: ContractCall, step: number) {
  const verb = getVerb(sal, call.verb);
  const context = contractContext(verb, call, { step });
  const args = verb.parse(call.args);
  const plan = await verb.plan(context, args);
  return {
    plan,
    apply: () => verb.apply(context, args, plan.before),
    undo: async () => verb.undo?.(context, args, plan.before),
  };
}

test('a container serves a file of its volume, comes back for the next owner and leaves nothing', async (context) => {
  const { folder, image, records, open } = await createPlace(context);
  const data: ContractCall = { verb: 'volume.ensure', name: 'data', args: { size: '16MiB' } };
  const web: ContractCall = {
    verb: 'container.ensure',
    name: 'web',
    args: {
      image,
      mounts: { '/www/data': contractRef('volume', 'data') },
      health: { http: { port: 80 }, within: '20s' },
    },
  };
  const first = await open();
  await applyWhole(salOf(first, 'volume'), data);
  const container = salOf(first, 'container');
  records.push(recordOf(container, web), recordOf(salOf(first, 'volume'), data));
  const { address } = (await applyWhole(container, web)) as { readonly address: string };
  const written = 'echo from the volume > /www/data/file';
  const exec: ContractCall = {
    verb: 'container.exec',
    name: 'web',
    args: { container: contractRef('container', 'web'), command: ['/bin/sh', '-c', written] },
  };
  expect(await applyWhole(container, exec, { step: 2 })).toMatchObject({ exitCode: 0 });
  expect(await get(address, '/data/file')).toBe('from the volume\n');

  // The first owner was killed, so to say: nothing was closed, everything is found.
  const second = await open();
  const { resource } = salOf(second, 'container');
  const record = recordOf(salOf(second, 'container'), web);
  const observed = await resource.observe(record, signal());
  expect(observed).toMatchObject({ state: 'running', converged: true, addresses: [address] });

  await resource.halt?.(record, signal());
  await second.close(signal());
  const mounts = await readFile('/proc/self/mounts', 'utf8');
  expect(mounts).not.toContain(folder);
  expect(mounts).not.toContain(second.group);
  await expect(access(join('/run', second.group))).rejects.toMatchObject({ code: 'ENOENT' });

  const third = await open();
  await salOf(third, 'container').resource.converge(record, signal());
  await expect
    .poll(() => get(address, '/data/file'), { timeout: 20_000 })
    .toBe('from the volume\n');
}, 120_000);

/** A database in small: it keeps its file open, and its second generation writes over what the first has. */
test('what a container that was brought back writes is in the volume that was brought back', async (context) => {
  const { folder, image, records, open } = await createPlace(context);
  const sals = await open();
  const [volume, container] = [salOf(sals, 'volume'), salOf(sals, 'container')];
  const data = (args = {}): ContractCall => ({
    verb: 'volume.ensure',
    name: 'data',
    args: { size: '16MiB', ...args },
  });
  const database = (command: string, args = {}): ContractCall => ({
    verb: 'container.ensure',
    name: 'database',
    args: {
      image,
      command: ['/bin/sh', '-c', command],
      mounts: { '/mnt': contractRef('volume', 'data') },
      ...args,
    },
  });
  const first = database('exec 3>>/mnt/file; while true; do echo one >&3; sleep 0.05; done');
  const record = recordOf(container, first);
  records.push(record, recordOf(volume, data()));
  const path = join(folder, 'sals/pool/volumes', contractRid('volume', 'data'), 'data/file');
  const read = () => readFile(path, 'utf8');
  await applyWhole(volume, data());
  await applyWhole(container, first, { step: 2 });
  await vi.waitFor(async () => expect(await read()).toContain('one\none\n'));

  const kept = await openStep(volume, data({ snapshotBefore: true }), 1);
  expect(kept.plan.action).toBe('update');
  await kept.apply();
  const health = { tcp: { port: 81 }, within: '300ms' };
  const second = database('echo two > /mnt/file; sleep 1000', { health });
  const replaced = await openStep(container, second, 2);
  await expect(replaced.apply()).rejects.toMatchObject({ code: 'E_HEALTH' });
  expect(await read()).toBe('two\n');
  await replaced.undo();
  await vi.waitFor(async () => expect(await read()).toContain('two\none\n'));
  await kept.undo();

  const { resource } = container;
  expect(await resource.observe(record, signal())).toMatchObject({ converged: false });
  const restored = await read();
  expect(restored).toMatch(/^(?:one\n)+$/);
  await resource.converge(record, signal());
  expect(await resource.observe(record, signal())).toMatchObject({
    state: 'running',
    converged: true,
  });
  await vi.waitFor(async () => expect((await read()).length).toBeGreaterThan(restored.length));
}, 120_000);
