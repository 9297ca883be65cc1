/** Attacks on the transport, on real processes: what a stranger sends must not keep a good client waiting. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { signRequest } from '@hypha/client';
import { waitFor } from '@hypha/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Fleet } from './fixtures/fleet.ts';

const BAD_SIGNATURES = fileURLToPath(new URL('fixtures/bad-signatures.ts', import.meta.url));
const FLOOD = 1000;
/** Generous: machines that run tests are slow. What was measured is printed. */
const ANSWER_MS_MAX = 15_000;
/** Heads and bodies have ten seconds, and a look every second; the rest is for a slow machine. */
const CUT_OFF_MS_MAX = 45_000;

let fleet: Fleet;
beforeAll(async () => {
  fleet = await Fleet.start('--sals', 'simulated');
});
afterAll(async () => fleet?.[Symbol.asyncDispose]());

/** A good client's read at each kind of service. */
const reads = {
  ledger: () => fleet.ledger.listNodes(),
  coordinator: () => fleet.coordinator.listRuns(),
  node: () => fleet.node.listRuns(),
} as const;
const PATHS = { ledger: '/v1/nodes', coordinator: '/v1/runs', node: '/v1/runs' } as const;
type Service = keyof typeof reads;
const SERVICES = Object.keys(reads) as Service[];

function urlOf(service: Service): URL {
  const { ledger, coordinator, nodes } = fleet.line;
  const urls = { ledger: ledger.url, coordinator: coordinator.url, node: nodes[0]?.url ?? '' };
  return new URL(urls[service]);
}

test.for(SERVICES)(
  'a thousand bad signatures at once do not keep a good client of a %s waiting',
  async (service) => {
    const { keyid } = fleet.operator;
    const url = new URL(PATHS[service], urlOf(service));
    const argv = [BAD_SIGNATURES, url.href, keyid, String(FLOOD)];
    const flood = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      const ended = once(flood, 'exit');
      const lines = createInterface({ input: flood.stdout })[Symbol.asyncIterator]();
      expect((await lines.next()).value).toBe('underway');
      const startedAt = performance.now();
      await reads[service]();
      const answerMs = performance.now() - startedAt;
      const { value: counts = '{}' } = await lines.next();
      const floodMs = performance.now() - startedAt;
      await ended;
      process.stdout.write(
        `${service}: good answer after ${Math.round(answerMs)} ms, ${FLOOD} refusals after ${Math.round(floodMs)} ms\n`,
      );
      expect(answerMs).toBeLessThan(ANSWER_MS_MAX);
      const { 401: refused = 0, 429: limited = 0, 503: busy = 0, ...others } = JSON.parse(counts);
      expect(refused).toBeGreaterThan(0);
      expect(refused + limited + busy).toBe(FLOOD);
      expect(others).toEqual({});
      expect((await fetch(new URL('/healthz', urlOf(service)))).status).toBe(200);
    } finally {
      flood.kill('SIGKILL');
    }
  },
);

test('a request is answered once, also when the process that answered it is gone', async () => {
  const url = new URL(PATHS.ledger, urlOf('ledger'));
  const sign = () => {
    const moment = { nowMs: Date.now(), nonce: randomBytes(16).toString('base64url') };
    return signRequest({ method: 'GET', url, body: new Uint8Array() }, fleet.operator, moment);
  };
  const ask = async (headers: Record<string, string>) => {
    const answer = await fetch(url, { headers });
    return { status: answer.status, body: (await answer.json()) as { detail?: string } };
  };
  const seen = sign();
  expect(await ask(seen)).toMatchObject({ status: 200 });
  expect(await ask(seen)).toMatchObject({
    status: 401,
    body: { detail: expect.stringContaining('nonce was used before') },
  });
  process.kill(fleet.pid('ledger'), 'SIGKILL');
  const again = await waitFor(() => ask(seen), { timeoutMs: CUT_OFF_MS_MAX });
  expect(again).toMatchObject({
    status: 401,
    body: { detail: expect.stringContaining('this service started at') },
  });
  expect(await ask(sign())).toMatchObject({ status: 200 });
});

test('the command line reads with an operator key, or else an admin key, and says when it has none', async () => {
  const { keys, ...context } = JSON.parse(readFileSync(join(fleet.state, 'context.json'), 'utf8'));
  const stateWith = (name: string, those: object) => {
    const state = join(fleet.state, name);
    mkdirSync(state);
    writeFileSync(join(state, 'context.json'), JSON.stringify({ ...context, keys: those }));
    return state;
  };
  const asAdmin = stateWith('as-admin', { admin: keys.admin });
  expect(await fleet.hyphaIn(asAdmin, 'run', 'list')).toMatchObject({ code: 0 });
  expect(await fleet.hyphaIn(asAdmin, 'run', 'list', '--via', 'node')).toMatchObject({ code: 0 });
  const keyless = stateWith('keyless', {});
  for (const command of [
    ['run', 'list'],
    ['run', 'list', '--via', 'node'],
    ['node', 'list'],
  ]) {
    expect(await fleet.hyphaIn(keyless, ...command)).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(
        /E_UNAUTHENTICATED: .* needs a signed request[\s\S]*keys\.operator/,
      ),
    });
  }
  expect(await fleet.hyphaIn(keyless, 'status')).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('shows nothing: E_UNAUTHENTICATED'),
  });
  expect(await fleet.hyphaIn(keyless, 'authority', 'show')).toMatchObject({ code: 0 });
});

interface SlowClient {
  readonly socket: Socket;
  readonly closed: Promise<unknown>;
  stop(): void;
}

/** Sends `head` at once and then a byte now and then, until it is cut off. */
function trickle(url: URL, head: string): SlowClient {
  const socket = connect(Number(url.port), url.hostname);
  socket.on('error', () => undefined).resume();
  const closed = once(socket, 'close');
  if (head !== '') socket.write(head);
  const timer = setInterval(() => {
    if (head !== '' && socket.writable) socket.write('x');
  }, 200);
  const stop = () => {
    clearInterval(timer);
    socket.destroy();
  };
  return { socket, closed, stop };
}

const POSTS = {
  ledger: '/v1/log/entries',
  coordinator: '/v1/deployments',
  node: '/v1/deployments',
} as const;

/** Headers that never end, a body that never ends, and nothing at all. */
function slowHeads(service: Service): readonly string[] {
  const body = 'content-type: application/json\r\ncontent-length: 100000\r\n\r\n';
  return [
    `GET ${PATHS[service]} HTTP/1.1\r\nhost: localhost\r\nx-slow: `,
    `POST ${POSTS[service]} HTTP/1.1\r\nhost: localhost\r\n${body}`,
    '',
  ];
}

test.for(SERVICES)(
  'slow clients do not block a %s and are cut off',
  { concurrent: true },
  async (service) => {
    const url = urlOf(service);
    const slow = slowHeads(service).flatMap((head) =>
      Array.from({ length: 100 }, () => trickle(url, head)),
    );
    try {
      await Promise.all(slow.map(({ socket }) => once(socket, 'connect')));
      let open = slow.length;
      for (const { closed } of slow) {
        void closed.then(() => {
          open--;
        });
      }
      let slowestMs = 0;
      let answers = 0;
      await waitFor(
        async () => {
          const startedAt = performance.now();
          await reads[service]();
          answers++;
          slowestMs = Math.max(slowestMs, performance.now() - startedAt);
          return open === 0;
        },
        { timeoutMs: CUT_OFF_MS_MAX, what: 'all slow clients to be cut off' },
      );
      process.stdout.write(
        `${service}: slowest of ${answers} good answers ${Math.round(slowestMs)} ms\n`,
      );
      expect(slowestMs).toBeLessThan(ANSWER_MS_MAX);
    } finally {
      for (const { stop } of slow) stop();
    }
  },
);
