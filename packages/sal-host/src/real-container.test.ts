import { access, mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ResourceRecord, Sal } from '@hypha/sal';
import { applyWhole, type ContractCall, contractRef, recordOf } from '@hypha/sal/contract';
import { buildBusyboxImage, findImageLack } from '@hypha/sal-container/testing';
import { expect, onTestFinished, test } from 'vitest';
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

test('a container serves a file of its volume, comes back for the next owner and leaves nothing', async (context) => {
  if (lacking !== undefined) context.skip(lacking);
  const folder = await mkdtemp(join(tmpdir(), 'hypha-node-'));
  const config = SalConfig.parse({ folder: join(folder, 'sals'), poolBytes: 512 * 1024 ** 2 });
  const layout = join(folder, 'image');
  const files = { '/www/index.html': 'from the image\n' };
  const image = await buildBusyboxImage({ folder: layout, tag: 'web', files });
  const open = () => openSals(config, { role: 'owner', node, nowMs: () => 0, signal: signal() });

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
  const records: ResourceRecord[] = [];
  onTestFinished(async () => {
    const last = await open();
    for (const record of records) {
      await last.sals.findKind(record.kind)?.remove(record, { deleteData: true, signal: signal() });
    }
    await last.close(signal());
    await rm(folder, { recursive: true });
  });
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
