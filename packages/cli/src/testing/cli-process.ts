/** The command line as a process of its own, in a folder of its own. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url));
const PROCESS_MS_MAX = 60_000;

export interface CliOutcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Its working, home and state folder is `folder`. Never rejects on an exit code. */
export function runCli(folder: string, ...args: readonly string[]): Promise<CliOutcome> {
  const env = { ...process.env, HOME: folder, HYPHA_STATE: folder };
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [MAIN, ...args],
      { env, cwd: folder, timeout: PROCESS_MS_MAX, maxBuffer: 16 * 1024 * 1024 },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : Number(error.code ?? -1);
        resolve({ code, stdout, stderr });
      },
    );
  });
}
