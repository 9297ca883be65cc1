import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { COMMAND_ENV, findTool, runCommand } from '@hypha/sal';

/** A `docker-registry` of Debian on a free loopback port, with its store in a folder of its own. */
export class LocalRegistry {
  /** `127.0.0.1:<port>`. */
  readonly address: string;
  readonly #folder: string;
  readonly #process: ChildProcess;

  private constructor(address: string, folder: string, process: ChildProcess) {
    this.address = address;
    this.#folder = folder;
    this.#process = process;
  }

  static async start(): Promise<LocalRegistry> {
    const tool = await findTool('docker-registry');
    if (tool === undefined) throw new Error('docker-registry is not installed');
    const folder = await mkdtemp(join(tmpdir(), 'hypha-registry-'));
    const address = `127.0.0.1:${await findFreePort()}`;
    await mkdir(join(folder, 'store'));
    const config = {
      version: 0.1,
      log: { level: 'error' },
      storage: { filesystem: { rootdirectory: join(folder, 'store') } },
      http: { addr: address },
    };
    // JSON is YAML.
    await writeFile(join(folder, 'config.yml'), JSON.stringify(config));
    const child = spawn(tool, ['serve', join(folder, 'config.yml')], {
      env: COMMAND_ENV,
      stdio: 'ignore',
    });
    const registry = new LocalRegistry(address, folder, child);
    try {
      await registry.#waitReady();
    } catch (error) {
      await registry.stop();
      throw error;
    }
    return registry;
  }

  /** Pushes what an `oci:` reference names; answers with the digest form of its reference. */
  async push(image: string, repository: string): Promise<string> {
    const skopeo = await findTool('skopeo');
    if (skopeo === undefined) throw new Error('skopeo is not installed');
    const named = `docker://${this.address}/${repository}:latest`;
    const signal = AbortSignal.timeout(60_000);
    const run = (...argv: readonly string[]) =>
      runCommand({ tool: skopeo, argv: ['--insecure-policy', ...argv], purpose: 'push', signal });
    await run('copy', '--dest-tls-verify=false', image, named);
    const { stdout } = await run('inspect', '--tls-verify=false', named);
    const { Digest } = JSON.parse(stdout) as { Digest: string };
    return `${this.address}/${repository}@${Digest}`;
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    if (this.#process.exitCode === null && this.#process.kill('SIGKILL')) await ended;
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #waitReady(): Promise<void> {
    const deadline = performance.now() + 20_000;
    while (performance.now() < deadline && this.#process.exitCode === null) {
      const answer = await fetch(`http://${this.address}/v2/`).catch(() => undefined);
      await answer?.body?.cancel();
      if (answer?.ok === true) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`the registry at ${this.address} does not answer`);
  }
}

async function findFreePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
