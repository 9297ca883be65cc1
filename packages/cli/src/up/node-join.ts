/**
 * `hypha node join`: this machine as a node, in the foreground: a private Redis and a supervisor. A token says
 * whom to trust and where they are, and lets the node in; without one the operator says so, and an admin
 * lets it in. After the first enrolment neither is needed.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CoordinatorClient } from '@hypha/client';
import type { NodeView } from '@hypha/protocol';
import { parseBytes } from '@hypha/sal/quantity';
import { CONTEXT_FILE, Context, defaultStateDir } from '../context.ts';
import { parseInteger } from '../option-parsers.ts';
import type { Session } from '../session.ts';
import { simulatedKinds, simulatedNote } from '../simulated-kinds.ts';
import { isEnrolled, nodeIdIn, nodeKeyIn, openState, type StateLayout } from '../state-layout.ts';
import { writeContext } from './context-file.ts';
import { checkPortsFree } from './free-ports.ts';
import { findJoinPlace, type PlaceFlags } from './join-place.ts';
import { removePidRecord, takeOver, writePidRecord } from './pid-record.ts';
import { ProcessManager } from './process-manager.ts';
import { waitForNodes } from './ready-nodes.ts';
import { redisProcess } from './redis-process.ts';
import { supervisorProcess } from './service-processes.ts';
import { stopSignal, whenAborted } from './stop-signal.ts';

export interface JoinFlags extends PlaceFlags {
  readonly port: string;
  readonly runners: string;
  readonly storage: string;
  readonly sals: string;
  readonly keepWorkloads?: true;
}

const READY_MS_MAX = 60_000;
const READABLE_NOTE =
  'everybody on this machine can read a command line: use --token-file FILE, - or HYPHA_JOIN_TOKEN';

/** @param argument what stands on the command line: `-`, a token, or nothing */
export async function joinNode(
  session: Session,
  argument: string | undefined,
  flags: JoinFlags,
): Promise<void> {
  const caFile = session.caFile === undefined ? undefined : resolve(session.caFile);
  const ca = caFile === undefined ? undefined : readFileSync(caFile, 'utf8');
  const port = parseInteger(flags.port, '--port', { min: 1, max: 65_535 });
  const { state: chosen } = session.flags;
  const state = openState(chosen === undefined ? defaultStateDir(session.env) : resolve(chosen));
  const place = findJoinPlace(state, argument, flags, session.env);
  const { name, ledger, coordinator, genesis, token } = place;
  if (argument === token && token !== undefined) session.output.note(READABLE_NOTE);
  const pidRecord = join(state.root, `node-${name}.json`);
  await takeOver(pidRecord);
  await checkPortsFree([port]);
  const stop = stopSignal();
  const processes = new ProcessManager((running) => writePidRecord(pidRecord, running));
  writePidRecord(pidRecord, []);
  try {
    // A name may be longer than a socket's path.
    const hash = createHash('sha256').update(name).digest('hex').slice(0, 8);
    const redisSocket = join(state.sockets, `node-${hash}.sock`);
    const redis = await redisProcess({
      nodes: [state.node(name)],
      dataDir: join(state.root, `redis-${name}`),
      ...{ socket: redisSocket, signal: stop },
      logFile: join(state.logs, `redis-${name}.log`),
    });
    await processes.start(redis, { readyMsMax: READY_MS_MAX, signal: stop });
    session.output.note(`joining at ${ledger}`);
    const supervisor = supervisorProcess(state, {
      name,
      port,
      redisSocket,
      runners: parseInteger(flags.runners, '--runners', { min: 1, max: 64 }),
      storageBytes: parseBytes(flags.storage),
      sals: flags.sals,
      joinToken: token,
      ...(place.isChosen ? { place: { ledger, coordinator, genesis } } : {}),
      caFile,
      onStop: flags.keepWorkloads === true ? 'keep' : 'stop',
    });
    await processes.start(supervisor, { readyMsMax: READY_MS_MAX, signal: stop });
    // It made its key before it was ready; a node may read what is known of itself.
    const signer = nodeKeyIn(state, name);
    const client = new CoordinatorClient({ baseUrl: coordinator, signer, ca });
    const node = { id: nodeIdIn(state, name), name, url: `http://127.0.0.1:${port}` };
    if (!isEnrolled(state, name)) session.output.note(`this machine's fingerprint: ${node.id}`);
    const [view] = await waitForNodes(client, [node], {
      signal: stop,
      onWaiting: (_, reason) => session.output.note(`not ready yet: ${reason}`),
    });
    if (view === undefined) return;
    const fresh = { ledger, coordinator, ca: caFile, genesis, keys: {}, nodes: [] };
    announce(session, state, fresh, { ...node, name: view.name }, view);
    await whenAborted(stop);
  } catch (error) {
    if (!stop.aborted) throw error;
  } finally {
    await processes.stop();
    removePidRecord(pidRecord);
  }
}

/** Under the name that its admission gave it. */
function announce(
  { output }: Session,
  state: StateLayout,
  fresh: Context,
  node: Context['nodes'][number],
  { facts }: NodeView,
): void {
  rememberNode(state, fresh, node);
  const simulated = simulatedKinds(facts);
  if (output.format === 'json') output.jsonLine({ ...node, simulated });
  else output.line(`${node.name} is ready${simulatedNote(simulated)}: ${node.id}; Ctrl-C stops it`);
}

/** So that commands with this state folder find the node; a context that `hypha up` wrote is kept. */
function rememberNode(state: StateLayout, fresh: Context, node: Context['nodes'][number]): void {
  const before = readContextFile(state) ?? fresh;
  // One that was given a new key has another id, and the name it had.
  const others = before.nodes.filter(({ id, name }) => id !== node.id && name !== node.name);
  writeContext(state, { ...before, nodes: [...others, node] });
}

function readContextFile(state: StateLayout): Context | undefined {
  try {
    return Context.parse(JSON.parse(readFileSync(join(state.root, CONTEXT_FILE), 'utf8')));
  } catch {
    return undefined;
  }
}
