import { findTool, runCommand } from '@hypha/sal';

export interface Program {
  /** Absolute path. */
  readonly command: string;
  readonly argv: readonly string[];
}

/**
 * What no runner needs of root, and nobody on this machine should get through one: the kernel's modules,
 * log and memory, the clock, reboot, security modules and audit rules, other users' files by lease and locks.
 */
const NEVER_NEEDED = [
  ...['sys_module', 'sys_rawio', 'sys_boot', 'sys_time', 'wake_alarm', 'syslog', 'mac_admin'],
  ...['mac_override', 'audit_control', 'audit_read', 'sys_pacct', 'sys_tty_config', 'lease'],
  ...['linux_immutable', 'ipc_owner', 'block_suspend'],
] as const;

const PROBE_MS_MAX = 5_000;

/**
 * The same program without what it does not need of its user's rights, for good: nor has anything it starts.
 * Where that cannot be done it is the program as it was; `hypha doctor` looks at the process itself.
 */
export async function confineRunner(program: Program, signal: AbortSignal): Promise<Program> {
  const tool = await findTool('setpriv');
  if (tool === undefined || process.geteuid?.() !== 0) return program;
  const without = NEVER_NEEDED.map((name) => `-${name}`).join(',');
  const taking = ['--inh-caps=-all', `--bounding-set=${without}`, '--no-new-privs', '--'];
  try {
    await runCommand({
      tool,
      argv: [...taking, '/bin/true'],
      purpose: 'try what runners are started with',
      timeoutMs: PROBE_MS_MAX,
      signal,
    });
  } catch {
    signal.throwIfAborted();
    return program;
  }
  return { command: tool, argv: [...taking, program.command, ...program.argv] };
}
