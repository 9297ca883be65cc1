import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';

/**
 * What a test could leave on the machine. Taken before and after the whole run: the suite fails on
 * anything more than there was.
 */
function machineState(): Set<string> {
  const state = new Set<string>();
  const user = process.getuid?.() ?? 0;
  for (const pid of list('/proc').filter((name) => /^\d+$/.test(name))) {
    const command = readProcess(pid);
    if (/^hypha-|redis-server|docker-registry|conmon|\/runc\b/.test(command) && isOwn(pid, user)) {
      state.add(`process ${pid} ${command}`);
    }
  }
  // What only root can make is nothing that the tests of anybody else leave.
  if (user !== 0) return state;
  for (const line of readLines('/proc/self/mounts')) state.add(`mount ${line.split(' ')[1]}`);
  for (const name of list('/sys/class/net')) state.add(`link ${name}`);
  for (const name of list('/run/netns')) state.add(`netns ${name}`);
  for (const name of list('/sys/block')) {
    if (existsSync(`/sys/block/${name}/loop/backing_file`)) state.add(`loop device ${name}`);
  }
  for (const name of list('/sys/fs/cgroup')) {
    for (const group of list(`/sys/fs/cgroup/${name}`)) {
      if (group.startsWith('hypha')) state.add(`cgroup ${name}/${group}`);
    }
    if (name.startsWith('hypha')) state.add(`cgroup ${name}`);
  }
  return state;
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function readLines(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n').filter(Boolean);
  } catch {
    return [];
  }
}

function readProcess(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}

/** Root's tests may leave processes of any user. */
function isOwn(pid: string, user: number): boolean {
  try {
    return user === 0 || statSync(`/proc/${pid}`).uid === user;
  } catch {
    return false;
  }
}

export default function setup(): () => void {
  const before = machineState();
  return () => {
    settle();
    const left = [...machineState()].filter((item) => !before.has(item));
    if (left.length > 0) throw new Error(`the tests left behind:\n  ${left.join('\n  ')}`);
  };
}

/** Lets the kernel finish what was asked of it: loop devices detach after the last unmount. */
function settle(): void {
  if (existsSync('/usr/bin/udevadm')) {
    execFileSync('/usr/bin/udevadm', ['settle', '--timeout=5'], { stdio: 'ignore' });
  } else {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  }
}
