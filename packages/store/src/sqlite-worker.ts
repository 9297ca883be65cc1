/**
 * The thread that owns the database. It takes every request that waits, in order, and commits the writes
 * among them together: while one fsync runs, the next group gathers by itself.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { runGroup, runRead } from './group-commit.ts';
import { failureOf, SqliteConnection, SqliteFailure } from './sqlite-connection.ts';
import type { StoreRequest, WorkerNotice, WorkerSettings } from './sqlite-message.ts';

/** Requests of one group: bounds how long the first of them waits for the last. */
const GROUP_REQUESTS_MAX = 512;

type GroupRequest = Extract<StoreRequest, { kind: 'read' | 'write' }>;

if (parentPort === null) throw new Error('sqlite-worker.ts runs as a worker thread');
const port = parentPort;
let commits = 0;

const notify = (notice: WorkerNotice) => port.postMessage(notice);

try {
  // The store starts this thread with exactly these settings.
  const connection = new SqliteConnection(workerData as WorkerSettings);
  notify({ type: 'opened' });
  port.on('message', (first: readonly StoreRequest[]) => {
    serve(connection, [...first, ...waitingRequests()]);
  });
} catch (error) {
  notify({ type: 'refused', failure: failureOf(error) });
}

function waitingRequests(): StoreRequest[] {
  const requests: StoreRequest[] = [];
  while (requests.length < GROUP_REQUESTS_MAX) {
    const next: { message: readonly StoreRequest[] } | undefined = receiveMessageOnPort(port);
    if (next === undefined) break;
    requests.push(...next.message);
  }
  return requests;
}

function serve(connection: SqliteConnection, requests: readonly StoreRequest[]): void {
  try {
    for (let at = 0; at < requests.length; ) at += serveNext(connection, requests.slice(at));
  } catch (error) {
    const failure = error instanceof SqliteFailure ? error.failure : failureOf(error);
    notify({ type: 'broken', failure });
    port.close();
  }
}

/** Returns how many requests it has taken from the front. */
function serveNext(connection: SqliteConnection, requests: readonly StoreRequest[]): number {
  const first = requests[0];
  if (first?.kind === 'close') {
    connection.close();
    notify({ type: 'closed' });
    port.close();
    return requests.length;
  }
  if (first?.kind === 'raw') {
    notify({ type: 'answers', answers: [runRead(connection, first)], commits });
    return 1;
  }
  const group = leadingGroup(requests);
  const writes = group.some((request) => request.kind === 'write');
  const answers = writes
    ? runGroup(connection, group, () => commits++)
    : group.flatMap((request) => (request.kind === 'read' ? runRead(connection, request) : []));
  notify({ type: 'answers', answers, commits });
  return group.length;
}

/** Reads and writes up to the first request that has to stand alone. */
function leadingGroup(requests: readonly StoreRequest[]): GroupRequest[] {
  const group: GroupRequest[] = [];
  for (const request of requests) {
    if (request.kind !== 'read' && request.kind !== 'write') break;
    if (group.length === GROUP_REQUESTS_MAX) break;
    group.push(request);
  }
  return group;
}
