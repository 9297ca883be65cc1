import { execFile, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { isReadableByAll } from '@hypha/testkit';
import { expect, onTestFinished, type TestContext, test } from 'vitest';
import { type Confinement, detectConfinement } from './confinement.ts';
import { confineHosts, hostCommand } from './host-command.ts';
import { SandboxHost } from './sandbox-host.ts';

const isRoot = process.geteuid?.() === 0;
const hasTools = ['setpriv', 'unshare'].every((name) => existsSync(`/usr/bin/${name}`));
/** In a folder that others may not enter, a host with a user of its own could not read its own code. */
const isOpen = isReadableByAll(fileURLToPath(import.meta.url));
const NOTHING = '0000000000000000';

function demandRoot({ skip }: TestContext): void {
  if (!isRoot || !hasTools) skip('needs root and util-linux');
}

async function startHost(count: number): Promise<SandboxHost> {
  const wrapper = await confineHosts(process.execPath);
  const host = await SandboxHost.start(hostCommand(process.execPath, wrapper, count));
  onTestFinished(() => host.stop());
  return host;
}

interface Status {
  readonly Uid: string;
  readonly Gid: string;
  readonly NoNewPrivs: string;
  readonly CapEff: string;
  readonly CapBnd: string;
  readonly [name: string]: string | undefined;
}

/** Of /proc/PID/status. */
function statusOf(text: string): Status {
  const lines = text.split('\n').map((line) => line.split(/:\s*/));
  return Object.fromEntries(lines.map(([key = '', value = '']) => [key, value.trim()])) as Status;
}

function read(host: SandboxHost, file: string): string {
  return readFileSync(`/proc/${host.pid}/${file}`, 'utf8');
}

test('a live host has a user of its own, no capability, no network and no way back', async (context) => {
  demandRoot(context);
  const [one, two] = await Promise.all([startHost(1), startHost(2)]);
  const status = statusOf(read(one, 'status'));
  const ids = status.Uid.split('\t');
  expect(new Set(ids).size).toBe(1);
  expect(status.NoNewPrivs).toBe('1');
  if (isOpen) {
    expect(Number(ids[0])).toBeGreaterThanOrEqual(0x7000_0000);
    expect(ids[0]).not.toBe(statusOf(read(two, 'status')).Uid.split('\t')[0]);
    expect(status).toMatchObject({ Gid: status.Uid, Groups: '' });
  } else {
    expect(ids[0]).toBe('0');
  }
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
    expect(status[set], set).toBe(NOTHING);
  }
  const interfaces = read(one, 'net/dev').split('\n').slice(2).filter(Boolean);
  expect(interfaces.map((line) => line.trim().split(':')[0])).toEqual(['lo']);
  // Up, it would have its address.
  expect(read(one, 'net/fib_trie')).not.toContain('127.0.0.1');
  expect(read(one, 'environ')).toBe('');
});

test('code in a host reaches no server of its machine', async (context) => {
  if (!hasTools) context.skip('needs util-linux');
  const server = createServer().listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const probe = `process.getBuiltinModule('node:net').connect(${port}, '127.0.0.1')
    .on('connect', () => { console.log('connected'); process.exit(); })
    .on('error', (error) => console.log(error.code));`;
  const wrapper = await confineHosts(process.execPath);
  const { file, args } = hostCommand(process.execPath, wrapper, 3);
  const { stdout } = await promisify(execFile)(file, [...args.slice(0, -1), '-e', probe]);
  expect(stdout.trim()).toBe(wrapper.confinement.ownNetwork ? 'ENETUNREACH' : 'connected');
  if (isRoot) expect(wrapper.confinement.ownNetwork).toBe(true);
});

test('where others cannot read what a host needs, it keeps its user and still has no capability', async (context) => {
  demandRoot(context);
  const folder = mkdtempSync(join(tmpdir(), 'hypha-closed-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'engine');
  writeFileSync(file, '');
  chmodSync(folder, 0o700);
  const wrapper = await detectConfinement({ files: [file] });
  expect(wrapper.confinement).toMatchObject({ ownUser: false, noCapabilities: true });
  expect(wrapper.confinement.lacks.join()).toContain(`${folder} is not readable by others`);
  const [tool = '', ...args] = wrapper.wrap(0);
  const text = execFileSync(tool, [...args, '/bin/cat', '/proc/self/status'], {
    encoding: 'utf8',
  });
  expect(statusOf(text)).toMatchObject({ CapEff: NOTHING, CapBnd: NOTHING, NoNewPrivs: '1' });
  expect(statusOf(text).Uid).toMatch(/^0\t0\t0\t0$/);
});

test('without root a host gets as little as the machine lets a user take away, and the rest is said', async (context) => {
  demandRoot(context);
  if (!isOpen) context.skip('needs a checkout that others can read');
  const code = `
      const { detectConfinement } = await import(${JSON.stringify(new URL('./confinement.ts', import.meta.url).href)});
      const wrapper = await detectConfinement({ files: [] });
      console.log(JSON.stringify({ confinement: wrapper.confinement, argv: wrapper.wrap(0) }));`;
  const asNobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups'];
  const run = (argv: readonly string[]) =>
    execFileSync('/usr/bin/setpriv', [...asNobody, ...argv], { encoding: 'utf8', cwd: '/' });
  const answer = run([process.execPath, '--input-type=module', '-e', code]);
  const { confinement, argv } = JSON.parse(answer) as {
    confinement: Confinement;
    argv: string[];
  };
  expect(confinement).toMatchObject({ ownUser: false, noNewPrivileges: true });
  expect(confinement.lacks).toContain('only root can give a host a user of its own');
  const status = statusOf(run([...argv, '/bin/cat', '/proc/self/status']));
  expect(status.NoNewPrivs).toBe('1');
  expect(status.CapEff).toBe(NOTHING);
  expect(status.CapBnd === NOTHING).toBe(confinement.noCapabilities);
});

const DETECT = `
  const { detectConfinement } = await import(${JSON.stringify(new URL('./confinement.ts', import.meta.url).href)});
  const wrapper = await detectConfinement({ files: [] });
  console.log(JSON.stringify(wrapper.confinement));`;

test.for([
  ['sys_admin', { ownNetwork: false, ownUser: true, noCapabilities: true }],
  ['setuid', { ownNetwork: true, ownUser: false, noCapabilities: true }],
  ['setpcap', { ownNetwork: true, ownUser: true, noCapabilities: false }],
] as const)(
  'root without %s takes away the rest, and says what not',
  async ([missing, left], context) => {
    demandRoot(context);
    const argv = ['--inh-caps=-all', `--bounding-set=-${missing}`, process.execPath];
    const answer = execFileSync(
      '/usr/bin/setpriv',
      [...argv, '--input-type=module', '-e', DETECT],
      {
        encoding: 'utf8',
      },
    );
    const confinement = JSON.parse(answer) as Confinement;
    expect(confinement).toMatchObject({ ...left, noNewPrivileges: true });
    expect(confinement.lacks).toHaveLength(1);
    expect(confinement.lacks[0]).toMatch(/^refused here: /);
  },
);
