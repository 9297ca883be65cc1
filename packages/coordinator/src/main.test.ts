import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type ServiceProcess, startService } from './testing/service-process.ts';

const ENTRY = new URL('./main.ts', import.meta.url);
let state: string;
let running: ServiceProcess | undefined;
beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), 'hypha-coordinator-main-'));
});
afterEach(async () => {
  await running?.kill('SIGKILL');
  running = undefined;
  await rm(state, { recursive: true, force: true });
});

/** Nobody listens there. */
const NO_LEDGER = 'http://127.0.0.1:9';

async function ended(args: readonly string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [fileURLToPath(ENTRY), ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [code] = await once(child, 'close');
  return { code, stderr };
}

test('a bad value ends it with 78, naming key, value and reason', async () => {
  const { code, stderr } = await ended(['--state', state, '--port', '70000']);
  expect(code).toBe(78);
  expect(stderr).toMatch(/^--port: 70000: .*65535/m);
  const fromEnv = await ended([], {
    HYPHA_COORDINATOR_STATE: state,
    HYPHA_COORDINATOR_GENESIS: 'x',
  });
  expect(fromEnv.code).toBe(78);
  expect(fromEnv.stderr).toMatch(/^HYPHA_COORDINATOR_GENESIS: x: /m);
});

test('it is ready without a ledger, says why it accepts nothing, and stops on SIGTERM', async () => {
  running = await startService(ENTRY, { state, port: 0, ledger: NO_LEDGER });
  const get = (path: string) => fetch(`${running?.url}${path}`);
  expect((await get('/healthz')).status).toBe(200);
  expect((await get('/readyz')).status).toBe(200);
  const body = JSON.stringify({
    envelope: {
      payloadType: 'application/vnd.hypha.script.v1+json',
      payload: 'e30=',
      signatures: [{ keyid: 'k', sig: Buffer.alloc(64).toString('base64') }],
    },
  });
  const refusal = await fetch(`${running.url}/v1/deployments`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  });
  expect(refusal.status).toBe(503);
  expect(await refusal.json()).toMatchObject({
    code: 'E_UNAVAILABLE',
    hint: expect.stringContaining('ledger'),
  });
  await running.kill('SIGTERM');
  expect(running.child.exitCode).toBe(0);
  expect((await readdir(state)).sort()).toEqual(['coordinator.pem', 'coordinator.sqlite']);
});

test('it stops when the process that started it is gone', async () => {
  running = await startService(ENTRY, { state, port: 0, ledger: NO_LEDGER });
  running.child.disconnect();
  await once(running.child, 'exit');
  expect(running.child.exitCode).toBe(0);
});

test('a second one on the same state does not start', async () => {
  running = await startService(ENTRY, { state, port: 0, ledger: NO_LEDGER });
  const { code, stderr } = await ended(['--state', state, '--port', '0']);
  expect(code).toBe(1);
  expect(stderr).toContain('E_UNAVAILABLE');
});
