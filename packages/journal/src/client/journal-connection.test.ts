import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HyphaError, toProblem } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { waitFor } from '@hypha/testkit';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { RunHead } from '../run-head.ts';
import { acceptedOf, admissionOf, finished, started } from '../testing/journal-fixture.ts';
import { connectJournal, type JournalConnection } from './journal-connection.ts';
import { LineChannel } from './line-channel.ts';
import { NumberedRequest, type RunnerRequest, type SupervisorNotice } from './socket-protocol.ts';

/** What the supervisor says: an answer, a refusal, or nothing. */
type Reply = { value: unknown } | { refusal: HyphaError } | 'silence' | 'hang up';

let folder: string;
let server: Server | undefined;
let channels: LineChannel[];
let heard: RunnerRequest[];
let reply: (request: RunnerRequest) => Reply;
let connection: JournalConnection | undefined;
let notices: SupervisorNotice[];
let losses: HyphaError[];

const admission = admissionOf();
const { run, envelope } = admission;
const { event } = new RunHead(nodeVerifier, run).append(acceptedOf(admission), { epoch: 0, at: 1 });
const claimAnswer = {
  ...{
    run,
    epoch: 1,
    envelope,
    authority: [],
    bootId: 'boot',
    events: [event],
    committed: [],
    secrets: {},
    isCancelled: false,
    expectedPlan: null,
  },
  node: { id: 'node', name: 'n', labels: {}, realms: ['*'] },
};
const agree = (request: RunnerRequest): Reply => {
  if (request.method === 'hello') return { value: {} };
  if (request.method === 'claim') return { value: claimAnswer };
  if (request.method === 'secrets') return { value: { files: { v1: '/run/x/v1' } } };
  if (request.method === 'read-kept') return { value: { events: [event] } };
  if (request.method !== 'append') return { value: {} };
  return { value: { seq: request.after + request.bodies.length } };
};

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hypha-socket-'));
  [channels, heard, notices, losses] = [[], [], [], []];
  reply = agree;
  await startServer();
});
afterEach(async () => {
  connection?.close();
  await stopServer();
  await rm(folder, { recursive: true });
});

const socketPath = () => join(folder, 's.sock');

async function startServer(): Promise<void> {
  const created = createServer((socket: Socket) => {
    const channel = new LineChannel(socket, {
      onValue: (value) => serve(channel, value),
      onClose: () => undefined,
    });
    channels.push(channel);
  });
  server = created;
  await new Promise<void>((resolve) => created.listen(socketPath(), resolve));
}

async function stopServer(): Promise<void> {
  const closing = server;
  server = undefined;
  for (const channel of channels.splice(0)) channel.destroy();
  if (closing !== undefined) await new Promise((resolve) => closing.close(resolve));
}

function serve(channel: LineChannel, value: unknown): void {
  const { id, request } = NumberedRequest.parse(value);
  heard.push(request);
  const answer = reply(request);
  if (answer === 'hang up') channel.destroy();
  else if (answer === 'silence') return;
  else if ('value' in answer) channel.send({ id, ok: true, value: answer.value });
  else channel.send({ id, ok: false, problem: toProblem(answer.refusal) });
}

async function open(reconnectMsMax = 5_000): Promise<JournalConnection> {
  connection = await connectJournal({
    socketPath: socketPath(),
    runner: 'r1',
    token: 'token',
    pid: 1,
    onNotice: (notice) => notices.push(notice),
    onLost: (error) => losses.push(error),
    reconnectMsMax,
  });
  return connection;
}

const methods = () => heard.map(({ method }) => method);
const stale = new HyphaError('E_STALE_EPOCH', 'given to another');

test('a runner says hello, claims and appends from where the journal ends', async () => {
  const journal = await open();
  expect((await journal.claim(run, 1)).envelope).toEqual(envelope);
  await journal.append(run, 1, [started()]);
  await journal.append(run, 1, [finished('failed')]);
  expect(methods()).toEqual(['hello', 'claim', 'append', 'append']);
  expect(heard.slice(-2)).toMatchObject([{ after: 1 }, { after: 2 }]);
});

test('secrets are asked for by name and version, and answered with files', async () => {
  const journal = await open();
  const secrets = [{ secret: 'token', version: 'v1' }];
  expect(await journal.provideSecrets(run, 1, secrets)).toEqual({ v1: '/run/x/v1' });
  expect(heard.at(-1)).toEqual({ method: 'secrets', run, epoch: 1, secrets });
});

test('a run that only waits is given back and is held no more', async () => {
  const journal = await open();
  await journal.claim(run, 1);
  await journal.park(run, 1, 5_000);
  expect(heard.at(-1)).toEqual({ method: 'park', run, epoch: 1, after: 1, wakeAtMs: 5_000 });
  await expect(journal.append(run, 1, [started()])).rejects.toThrow(/does not hold/);
});

test('a run is given back also when the answer is lost and the epoch has ended meanwhile', async () => {
  const journal = await open();
  await journal.claim(run, 1);
  const isOver = (request: RunnerRequest) =>
    request.method === 'park' || (request.method === 'hello' && request.holding.length > 0);
  reply = (request) => {
    if (request.method !== 'park') return agree(request);
    reply = (later) => (isOver(later) ? { refusal: stale } : agree(later));
    return 'hang up';
  };
  await journal.park(run, 1, 5_000);
  expect(methods().slice(-3)).toEqual(['hello', 'hello', 'park']);
  expect(losses).toEqual([]);
});

test('the journal of a kept run and a beat are asked for and answered', async () => {
  const journal = await open();
  await journal.claim(run, 1);
  expect(await journal.readKept(run, 1, run)).toEqual([event]);
  await journal.beat();
  expect(heard.slice(-2)).toEqual([
    { method: 'read-kept', run, epoch: 1, target: run },
    { method: 'beat' },
  ]);
});

test('a refusal reaches the caller and the connection stays', async () => {
  const journal = await open();
  reply = (request) => (request.method === 'claim' ? { refusal: stale } : agree(request));
  await expect(journal.claim(run, 1)).rejects.toMatchObject({ code: 'E_STALE_EPOCH' });
  reply = agree;
  await expect(journal.claim(run, 1)).resolves.toBeDefined();
});

test('an append whose answer was lost is sent again after the runner said what it holds', async () => {
  const journal = await open();
  await journal.claim(run, 1);
  reply = (request) => (request.method === 'append' ? 'hang up' : agree(request));
  const appended = journal.append(run, 1, [started()]);
  await waitFor(() => methods().includes('append'), { what: 'it was heard once' });
  reply = agree;
  await appended;
  const [first, second] = heard.filter(({ method }) => method === 'append');
  expect(second).toEqual(first);
  expect(heard.findLast(({ method }) => method === 'hello')).toMatchObject({
    holding: [{ run, epoch: 1 }],
  });
});

test('while the supervisor is away an append waits, and goes on with the next one', async () => {
  const journal = await open();
  await journal.claim(run, 1);
  await stopServer();
  const appended = journal.append(run, 1, [started()]);
  await startServer();
  await appended;
  expect(methods().slice(-2)).toEqual(['hello', 'append']);
});

test('what ended or was committed is no longer held', async () => {
  const journal = await open();
  await journal.claim(run, 1);
  await journal.append(run, 1, [started(), finished('failed')]);
  await stopServer();
  await startServer();
  await waitFor(() => methods().filter((method) => method === 'hello').length === 2, {
    what: 'it is back',
  });
  expect(heard.at(-1)).toMatchObject({ holding: [] });
  await expect(journal.append(run, 1, [started()])).rejects.toThrow(/does not hold/);
});

test('a runner whose runs were given to others is told, and fails whoever waits', async () => {
  const journal = await open();
  await journal.claim(run, 1);
  await stopServer();
  reply = () => ({ refusal: stale });
  const appended = expect(journal.append(run, 1, [started()])).rejects.toMatchObject({
    code: 'E_STALE_EPOCH',
  });
  await startServer();
  await appended;
  expect(losses).toMatchObject([{ code: 'E_STALE_EPOCH' }]);
  await expect(journal.claim(run, 1)).rejects.toMatchObject({ code: 'E_STALE_EPOCH' });
});

test('a supervisor that stays away is given up after the time allowed', async () => {
  const journal = await open(200);
  await journal.claim(run, 1);
  await stopServer();
  await expect(journal.append(run, 1, [started()])).rejects.toMatchObject({
    code: 'E_UNAVAILABLE',
  });
  expect(losses).toHaveLength(1);
});

test('a runner that nobody started is refused', async () => {
  reply = () => ({ refusal: new HyphaError('E_UNAUTHENTICATED', 'not ours') });
  await expect(open()).rejects.toMatchObject({ code: 'E_UNAUTHENTICATED' });
});

test('notices arrive unasked, nonsense ends the connection and it comes back', async () => {
  await open();
  channels[0]?.send({ notice: 'drain' });
  await waitFor(() => notices.length === 1, { what: 'the notice is there' });
  channels[0]?.send({ neither: 'nor' });
  await waitFor(() => methods().length === 2, { what: 'it is back' });
  expect(losses).toEqual([]);
});

test('more than fits a line is refused before it is sent', async () => {
  const journal = await open();
  await journal.claim(run, 1);
  const message = 'x'.repeat(9 * 1024 * 1024);
  await expect(
    journal.append(run, 1, [{ type: 'log', line: 1, message, fields: null }]),
  ).rejects.toMatchObject({ code: 'E_OUTPUT' });
  await journal.append(run, 1, [started()]);
});
