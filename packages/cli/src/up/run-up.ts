/**
 * `hypha up`: a whole fleet in one command. First boot makes keys, genesis and grants and admits its nodes;
 * a later start on the same state finds all of that and goes on. Everything it starts, it stops.
 */
import { rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CoordinatorClient, LedgerClient } from '@hypha/client';
import type { NodeView } from '@hypha/protocol';
import { admitNode } from '../authority-signing.ts';
import { type Context, defaultStateDir } from '../context.ts';
import type { Session } from '../session.ts';
import { simulatedKinds } from '../simulated-kinds.ts';
import { isEnrolled, nodeIdIn, openState, type StateLayout } from '../state-layout.ts';
import { writeContext } from './context-file.ts';
import { checkPortsFree } from './free-ports.ts';
import { removePidRecord, takeOver, writePidRecord } from './pid-record.ts';
import { ProcessManager } from './process-manager.ts';
import {
  ensureAuthority,
  ensureGenesis,
  ensureKeys,
  type FleetKeys,
  keyFile,
} from './provision.ts';
import { waitForNodes } from './ready-nodes.ts';
import { redisProcess } from './redis-process.ts';
import { coordinatorProcess, ledgerProcess, supervisorProcess } from './service-processes.ts';
import { stopSignal, whenAborted } from './stop-signal.ts';

export interface UpOptions {
  readonly portBase: number;
  readonly nodes: number;
  readonly runners: number;
  readonly storageBytes: number;
  readonly sals: string;
}

const READY_MS_MAX = 60_000;
const JOIN_TOKEN_SECONDS = 900;

export async function runUp(session: Session, options: UpOptions): Promise<void> {
  const { state: chosen } = session.flags;
  const state = openState(chosen === undefined ? defaultStateDir(session.env) : resolve(chosen));
  await takeOver(state.pidRecord);
  await checkPortsFree(Array.from({ length: 2 + options.nodes }, (_, n) => options.portBase + n));
  const stop = stopSignal();
  const processes = new ProcessManager((running) => writePidRecord(state.pidRecord, running));
  writePidRecord(state.pidRecord, []);
  try {
    const fleet = await startFleet(session, state, processes, options, stop);
    announce(session, fleet);
    await whenAborted(stop);
  } catch (error) {
    if (!stop.aborted) throw error;
  } finally {
    session.output.note('stopping');
    await processes.stop();
    removePidRecord(state.pidRecord);
    if (state.sockets !== join(state.root, 'run'))
      rmSync(state.sockets, { recursive: true, force: true });
  }
}

interface Fleet {
  readonly context: Context;
  readonly nodes: readonly { id: string; name: string; url: string; view: NodeView }[];
  readonly operatorKeyId: string;
}

async function startFleet(
  session: Session,
  state: StateLayout,
  processes: ProcessManager,
  options: UpOptions,
  signal: AbortSignal,
): Promise<Fleet> {
  const start = (spec: Parameters<ProcessManager['start']>[0]) =>
    processes.start(spec, { readyMsMax: READY_MS_MAX, signal });
  const { portBase } = options;
  const ledger = `http://127.0.0.1:${portBase}`;
  const coordinator = `http://127.0.0.1:${portBase + 1}`;
  const keys = ensureKeys(state);
  const genesis = ensureGenesis(state, keys.root, session.nowSeconds());
  const redisSocket = join(state.sockets, 'redis.sock');
  const names = Array.from({ length: options.nodes }, (_, index) => `node-${index + 1}`);
  const startRedis = async () =>
    start(
      await redisProcess({
        nodes: names.map((name) => state.node(name)),
        ...{ dataDir: state.redis, socket: redisSocket, signal },
        logFile: join(state.logs, 'redis.log'),
      }),
    );
  session.output.note('starting ledger, coordinator and redis');
  await Promise.all([start(ledgerProcess(state, portBase)), startRedis()]);
  const ledgerClient = new LedgerClient({ baseUrl: ledger });
  await ensureAuthority(ledgerClient, keys, genesis, session.nowSeconds());
  await start(
    coordinatorProcess(state, {
      ...{ port: portBase + 1, ledger, genesis },
      key: keyFile(state, 'coordinator'),
    }),
  );
  if (names.length > 0) session.output.note(`starting ${names.join(', ')}`);
  await Promise.all(
    names.map(async (name, index) => {
      const joinToken = isEnrolled(state, name)
        ? undefined
        : await admit(ledgerClient, {
            keys,
            name,
            ledger,
            coordinator,
            genesis,
            nowMs: session.nowMs(),
          });
      const { runners, storageBytes, sals } = options;
      const port = portBase + 2 + index;
      await start(
        supervisorProcess(state, {
          ...{ name, port, redisSocket, runners, storageBytes, sals, joinToken },
          onStop: 'stop',
        }),
      );
    }),
  );
  const started = names.map((name, index) => ({
    id: nodeIdIn(state, name),
    name,
    url: `http://127.0.0.1:${portBase + 2 + index}`,
  }));
  const client = new CoordinatorClient({ baseUrl: coordinator, signer: keys.operator });
  const views = await waitForNodes(client, started, { signal, waitMsMax: READY_MS_MAX });
  const nodes = started.flatMap((node, index) => {
    const view = views[index];
    return view === undefined ? [] : [{ ...node, view }];
  });
  const context: Context = {
    ledger,
    coordinator,
    genesis,
    keys: {
      operator: keyFile(state, 'operator'),
      admin: keyFile(state, 'admin'),
      root: [keyFile(state, 'root')],
    },
    nodes: nodes.map(({ id, name, url }) => ({ id, name, url })),
  };
  writeContext(state, context);
  return { context, nodes, operatorKeyId: keys.operator.keyid };
}

/** A fresh admission, so that the token in it has not expired; the ledger holds it before the node asks. */
async function admit(
  client: LedgerClient,
  node: {
    keys: FleetKeys;
    name: string;
    ledger: string;
    coordinator: string;
    genesis: string;
    nowMs: number;
  },
): Promise<string> {
  const { keys, ...rest } = node;
  const { admission, token } = admitNode({
    ...rest,
    admin: keys.admin,
    labels: {},
    realms: ['*'],
    lifetimeSeconds: JOIN_TOKEN_SECONDS,
  });
  await client.appendEntry(admission);
  return token;
}

/** The one line programs wait for (issue contract), and the same for people. */
function announce(session: Session, { context, nodes, operatorKeyId }: Fleet): void {
  const { output } = session;
  if (output.format === 'json') {
    output.jsonLine({
      ledger: { url: context.ledger },
      coordinator: { url: context.coordinator },
      nodes: nodes.map(({ id, url, view }) => ({ id, url, simulated: simulatedKinds(view.facts) })),
      operator: { keyid: operatorKeyId, keyFile: context.keys.operator },
    });
    return;
  }
  output.line(`ledger       ${context.ledger}`);
  output.line(`coordinator  ${context.coordinator}`);
  for (const { name, url, view } of nodes) {
    const sals = Object.entries(view.facts.sals)
      .map(([kind, sal]) => `${kind} ${sal.state === 'real' ? sal.driver : sal.state}`)
      .join(', ');
    output.line(`${name.padEnd(12)} ${url}  ${sals}`);
  }
  output.line(`operator     ${operatorKeyId}`);
  output.line('ready; Ctrl-C stops everything');
}
