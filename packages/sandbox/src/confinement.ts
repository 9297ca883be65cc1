/**
 * What a sandbox host is not given besides memory and time: capabilities, a network, the user of its
 * runner (security notes §2.4). Two tools of util-linux take it away and then become Node, so the host
 * keeps the process id its runner knows. What this machine cannot take away is said, not assumed.
 */
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access, realpath, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';

export interface Confinement {
  /** A user id that nothing else on the machine has, another for every host of a runner. */
  readonly ownUser: boolean;
  /** A network namespace with nothing but `lo`, which is down. */
  readonly ownNetwork: boolean;
  /** No capability, and none to be had: the bounding set is empty. */
  readonly noCapabilities: boolean;
  /** `execve` of a set-user-id program gives nothing. */
  readonly noNewPrivileges: boolean;
  /** Why one of the above is missing, for a person; empty when nothing is. */
  readonly lacks: readonly string[];
}

interface Tools {
  readonly unshare: string | undefined;
  readonly setpriv: string | undefined;
}

/** Nothing is taken away. */
const OPEN: Confinement = {
  ownUser: false,
  ownNetwork: false,
  noCapabilities: false,
  noNewPrivileges: false,
  lacks: [],
};

/** util-linux is at one of these on every distribution; what is on `PATH` is not asked. */
const TOOL_FOLDERS = ['/usr/bin', '/bin'] as const;
const PROBE_MS_MAX = 5_000;
/** What a probe runs in the place of a host. */
const PRINT = '/bin/cat';
const STATUS = '/proc/self/status';
/**
 * First user id of hosts. systemd's table of uids assigns nothing from here to 2^31, and says no other
 * software does; 22 bits of a process id and 6 of a counter fit in.
 */
const FIRST_UID = 0x7000_0000;
const PID_MAX = 2 ** 22;
const UIDS_PER_RUNNER = 64;

/** Id of the `count`th host of this process: never that of another host that lives. */
function hostUid(count: number): number {
  return FIRST_UID + (process.pid % PID_MAX) * UIDS_PER_RUNNER + (count % UIDS_PER_RUNNER);
}

export class HostWrapper {
  readonly confinement: Confinement;
  readonly #tools: Tools;
  readonly #isRoot: boolean;

  constructor(confinement: Confinement, tools: Tools, isRoot: boolean) {
    this.confinement = confinement;
    this.#tools = tools;
    this.#isRoot = isRoot;
  }

  /** Arguments to put before a command: each is a program that becomes the next. */
  wrap(count: number): readonly string[] {
    const { ownUser, ownNetwork, noCapabilities, noNewPrivileges } = this.confinement;
    const { unshare, setpriv } = this.#tools;
    const user = String(hostUid(count));
    // Who is not root makes a user namespace to be root of; it shows outside as the user who made it.
    const asRoot = this.#isRoot ? [] : ['--user', '--map-root-user'];
    return [
      ...(ownNetwork && unshare !== undefined ? [unshare, ...asRoot, '--net', '--ipc', '--'] : []),
      ...(noNewPrivileges && setpriv !== undefined
        ? [
            setpriv,
            ...(ownUser ? ['--reuid', user, '--regid', user, '--clear-groups'] : []),
            ...(noCapabilities
              ? ['--inh-caps=-all', '--ambient-caps=-all', '--bounding-set=-all']
              : []),
            '--no-new-privs',
            '--',
          ]
        : []),
    ];
  }
}

const OPEN_WRAPPER = new HostWrapper(OPEN, { unshare: undefined, setpriv: undefined }, false);

/**
 * The most this machine and this user can take away, found by trying. Never throws: what is missing is in
 * `lacks`.
 *
 * @param options.files everything a host opens, absolute: a user of its own needs them to be readable by all
 */
export async function detectConfinement(options: {
  readonly files: readonly string[];
}): Promise<HostWrapper> {
  const tools = { unshare: await findTool('unshare'), setpriv: await findTool('setpriv') };
  const isRoot = process.geteuid?.() === 0;
  const closed = isRoot ? await findClosed(options.files) : undefined;
  const lacks: string[] = [];
  for (const [name, path] of Object.entries(tools)) {
    if (path === undefined) lacks.push(`no ${name} (util-linux) on this machine`);
  }
  if (!isRoot) lacks.push('only root can give a host a user of its own');
  if (closed !== undefined) {
    lacks.push(`${closed} is not readable by others: hosts share the user of their runner`);
  }
  const most: Confinement = {
    ownUser: isRoot && closed === undefined && tools.setpriv !== undefined,
    ownNetwork: tools.unshare !== undefined,
    noCapabilities: tools.setpriv !== undefined && (isRoot || tools.unshare !== undefined),
    noNewPrivileges: tools.setpriv !== undefined,
    lacks,
  };
  for (const confinement of weaker(most, isRoot)) {
    const wrapper = new HostWrapper(confinement, tools, isRoot);
    if (await works(wrapper)) return wrapper;
  }
  return OPEN_WRAPPER;
}

/** What each is called when a machine refuses it. */
const NAMES = {
  noCapabilities: 'no capabilities',
  ownUser: 'a user of their own',
  ownNetwork: 'a network of their own',
  noNewPrivileges: 'no new privileges',
} as const;
type Part = keyof typeof NAMES;
/** From what matters most to what matters least. */
const PARTS: readonly Part[] = ['noNewPrivileges', 'noCapabilities', 'ownUser', 'ownNetwork'];

/** From most to least. Containers often refuse namespaces, and some kernels do so to users. */
function weaker(most: Confinement, isRoot: boolean): readonly Confinement[] {
  let found: readonly (readonly Part[])[] = [[]];
  for (const part of PARTS.filter((each) => most[each])) {
    found = found.flatMap((kept) => [[...kept, part], kept]);
  }
  return found
    .filter((kept) => canKeep(kept, isRoot))
    .map((kept) => {
      const refused = PARTS.filter((part) => most[part] && !kept.includes(part));
      const names = refused.map((part) => NAMES[part]).join(', ');
      return {
        ownUser: kept.includes('ownUser'),
        ownNetwork: kept.includes('ownNetwork'),
        noCapabilities: kept.includes('noCapabilities'),
        noNewPrivileges: kept.includes('noNewPrivileges'),
        lacks: refused.length === 0 ? most.lacks : [...most.lacks, `refused here: ${names}`],
      };
    });
}

/** All but the namespaces is one tool's work; only in a namespace of its own may a user give up what it has. */
function canKeep(kept: readonly Part[], isRoot: boolean): boolean {
  const needsTool = kept.includes('noCapabilities') || kept.includes('ownUser');
  if (needsTool && !kept.includes('noNewPrivileges')) return false;
  return isRoot || !kept.includes('noCapabilities') || kept.includes('ownNetwork');
}

/** Whether a process that was started so has lost what it was to lose: tools may drop less than they are told. */
async function works(wrapper: HostWrapper): Promise<boolean> {
  const { noCapabilities, noNewPrivileges } = wrapper.confinement;
  const [tool = PRINT, ...args] = wrapper.wrap(0);
  const argv = tool === PRINT ? [STATUS] : [...args, PRINT, STATUS];
  try {
    const { stdout } = await promisify(execFile)(tool, argv, {
      env: {},
      cwd: '/',
      timeout: PROBE_MS_MAX,
      maxBuffer: 64 * 1024,
    });
    const isEmpty = (set: string) => new RegExp(`^${set}:\\s*0+$`, 'm').test(stdout);
    const hasNone = ['CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].every(isEmpty);
    const isFinal = /^NoNewPrivs:\s*1$/m.test(stdout);
    return (hasNone || !noCapabilities) && (isFinal || !noNewPrivileges);
  } catch {
    return false;
  }
}

async function findTool(name: string): Promise<string | undefined> {
  for (const folder of TOOL_FOLDERS) {
    const path = `${folder}/${name}`;
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  return undefined;
}

/** The first file or folder on the way to them that a stranger cannot use. */
async function findClosed(files: readonly string[]): Promise<string | undefined> {
  const seen = new Set<string>();
  for (const file of files) {
    const path = await realpath(file).catch(() => undefined);
    if (path === undefined) return file;
    for (let at = path; !seen.has(at); at = dirname(at)) {
      seen.add(at);
      const { mode } = await stat(at);
      const needed = at === path ? constants.S_IROTH : constants.S_IXOTH;
      if ((mode & needed) === 0) return at;
    }
  }
  return undefined;
}
