/** Who becomes a node: `node add`, `admit` and `rekey`. */
import { createInterface } from 'node:readline/promises';
import type { LedgerClient } from '@hypha/client';
import {
  buildNodeAdmissionPayload,
  HyphaError,
  isHyphaError,
  Name,
  NodeId,
  type NodeView,
} from '@hypha/protocol';
import type { Command } from 'commander';
import { admitFingerprint, admitNode, type NodePlace } from '../authority-signing.ts';
import { defaultStateDir } from '../context.ts';
import { collect, parseInteger, parsePairs } from '../option-parsers.ts';
import { bytes } from '../output.ts';
import { allPages, type Session, sessionOf } from '../session.ts';
import { ensureNextKey, findJoined, nodeIdIn, openState } from '../state-layout.ts';
import { writeUnsignedAdmission } from '../unsigned-admission.ts';

/** A join token lives this long at most (design §8). */
const TOKEN_SECONDS_MAX = 3600;
const ADMISSION_SECONDS_MAX = 30 * 86_400;
/** Characters of a fingerprint that may stand for it: 40 bits. */
const PREFIX_CHARS_MIN = 8;

interface PlaceOptions {
  readonly label: string[];
  readonly realm: string[];
  readonly ttl: string;
  readonly key?: string;
  readonly replaces?: string;
}

/** Nodes that wait for an admin, as the ledger has them. */
function listPending(ledger: LedgerClient): Promise<NodeView[]> {
  return allPages((cursor) => ledger.listNodes({ state: 'pending', cursor, limit: 500 }));
}

function listEnrolled(ledger: LedgerClient): Promise<NodeView[]> {
  return allPages((cursor) => ledger.listNodes({ cursor, limit: 500 }));
}

/** Name, labels and realms as asked; those of the node that is replaced where nothing is asked. */
async function readPlace(
  ledger: LedgerClient,
  name: string | undefined,
  options: PlaceOptions,
  secondsMax: number,
): Promise<NodePlace> {
  const lifetimeSeconds = parseInteger(options.ttl, '--ttl', { min: 1, max: secondsMax });
  const nodes = await listEnrolled(ledger);
  const old = options.replaces === undefined ? undefined : findNode(nodes, options.replaces);
  const chosen = name ?? old?.name;
  if (chosen === undefined || !Name.safeParse(chosen).success) {
    throw new HyphaError('E_NAME', `not a valid node name: ${JSON.stringify(chosen ?? '')}`, {
      hint: 'give it one: --name NAME',
    });
  }
  const taken = nodes.find((node) => node.name === chosen);
  if (taken !== undefined && taken.id !== old?.id) {
    throw new HyphaError('E_NODE_NAME', `the name ${chosen} is that of ${taken.id}`, {
      hint: `choose another; for a new key of that machine: --replaces ${chosen}`,
    });
  }
  const labels = parsePairs(options.label, '--label');
  return {
    name: chosen,
    labels: options.label.length === 0 && old !== undefined ? old.labels : labels,
    realms: options.realm.length > 0 ? options.realm : (old?.realms ?? ['*']),
    replaces: old?.id,
    lifetimeSeconds,
  };
}

function findNode(nodes: readonly NodeView[], wanted: string): NodeView {
  const found = nodes.find(({ id, name }) => id === wanted || name === wanted);
  if (found !== undefined) return found;
  throw new HyphaError('E_NOT_FOUND', `no node ${wanted}`, { hint: 'hypha node list' });
}

async function addNode(session: Session, name: string, options: PlaceOptions): Promise<void> {
  const admin = session.admin(options.key);
  const client = session.ledgerAs(admin);
  const place = await readPlace(client, name, options, TOKEN_SECONDS_MAX);
  const { ledger, coordinator, genesis } = session.context;
  const { admission, token, expiresAt } = admitNode({
    ...place,
    admin,
    nowMs: session.nowMs(),
    genesis,
    ledger,
    coordinator,
  });
  await client.appendEntry(admission);
  session.output.item({ name, token, expiresAt }, [
    ['node', name],
    ['token', token],
    ['expires', new Date(expiresAt * 1000).toISOString()],
    ['next', 'write it to a file on the machine, there: hypha node join --token-file FILE'],
  ]);
}

interface AdmitOptions extends PlaceOptions {
  readonly name?: string;
  readonly yes?: true;
  readonly unsigned?: true;
  readonly out?: string;
}

async function admit(session: Session, wanted: string, options: AdmitOptions): Promise<void> {
  const { unsigned, out = '-' } = options;
  if (unsigned === true) {
    const ledger = session.ledger();
    const { id } = await findPending(ledger, wanted);
    const place = await readPlace(ledger, options.name, options, ADMISSION_SECONDS_MAX);
    const payload = buildNodeAdmissionPayload(id, place, session.nowMs());
    return await writeUnsignedAdmission(session, payload, out);
  }
  const admin = session.admin(options.key);
  const ledger = session.ledgerAs(admin);
  const pending = await findPending(ledger, wanted);
  const place = await readPlace(ledger, options.name, options, ADMISSION_SECONDS_MAX);
  showFingerprint(session, pending);
  if (!(await isConfirmed(options, `admit it as ${place.name}?`))) {
    throw new HyphaError('E_ARGUMENT', `${pending.id} was not admitted`, {
      hint: 'compare the fingerprint with the one that the machine shows',
    });
  }
  const { admission, expiresAt } = admitFingerprint(pending.id, {
    ...place,
    admin,
    nowMs: session.nowMs(),
  });
  const { digest } = await ledger.appendEntry(admission);
  const { name, realms, replaces } = place;
  session.output.item({ node: pending.id, name, realms, replaces, admission: digest, expiresAt }, [
    ['node', pending.id],
    ['name', name],
    ...(replaces === undefined ? [] : [['replaces', replaces] as const]),
    ['until', new Date(expiresAt * 1000).toISOString()],
    ['next', 'it joins when it asks again, within seconds; hypha node list'],
  ]);
}

/** One that is not waiting can be named by its whole fingerprint: it finds its admission when it comes. */
async function findPending(
  ledger: LedgerClient,
  wanted: string,
): Promise<{ readonly id: NodeId; readonly facts?: NodeView['facts'] }> {
  const waiting = await listPending(ledger);
  const exact = waiting.find(({ id }) => id === wanted);
  if (exact !== undefined) return exact;
  if (NodeId.safeParse(wanted).success) return { id: wanted };
  const prefix = wanted.replace(/^node_/, '');
  const matching = waiting.filter(({ id }) => id.startsWith(`node_${prefix}`));
  const [match, another] = matching;
  if (prefix.length < PREFIX_CHARS_MIN || another !== undefined) {
    throw new HyphaError('E_ARGUMENT', `${wanted} does not say which node`, {
      hint: `give its whole fingerprint, or a beginning of ${PREFIX_CHARS_MIN} characters or more that no other has`,
      details: matching.map(({ id, facts }) => `${id}  ${facts.hostname}`),
    });
  }
  if (match !== undefined) return match;
  throw new HyphaError('E_NOT_FOUND', `no node whose fingerprint begins with ${wanted} waits`, {
    hint: 'hypha node list',
  });
}

function showFingerprint(
  { output }: Session,
  { id, facts }: { readonly id: string; readonly facts?: NodeView['facts'] },
): void {
  output.note(`fingerprint  ${id}`);
  if (facts === undefined) {
    output.note('it does not wait at the ledger now');
    return;
  }
  const { hostname, os, arch, cpus, memoryBytes } = facts;
  // The machine's own words: an admin goes by the fingerprint.
  output.note(`says it is   ${hostname}, ${os}, ${arch}, ${cpus} cpus, ${bytes(memoryBytes)}`);
}

/** Programs are not asked. */
async function isConfirmed({ yes }: AdmitOptions, question: string): Promise<boolean> {
  if (yes === true || !process.stdin.isTTY || !process.stderr.isTTY) return true;
  const reader = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await reader.question(`${question} [y/N] `)).trim());
  } finally {
    reader.close();
  }
}

function rekeyNode(session: Session, wanted: string | undefined): void {
  const { state: chosen } = session.flags;
  const state = openState(chosen ?? defaultStateDir(session.env));
  const names = findJoined(state).map(({ name }) => name);
  const [name, another] = wanted === undefined ? names : names.filter((each) => each === wanted);
  if (name === undefined || another !== undefined) {
    throw new HyphaError(
      'E_NOT_FOUND',
      wanted === undefined
        ? `${names.length} nodes have joined with ${state.root}`
        : `no node has joined with ${state.root} in a folder ${wanted}`,
      { hint: names.length > 0 ? `name one: ${names.join(', ')}` : 'name its state: --state DIR' },
    );
  }
  const [node, next] = [nodeIdIn(state, name), ensureNextKey(state, name)];
  session.output.item({ name, node, next }, [
    ['node', `${name}, ${node}`],
    ['next key', next],
    ['next', 'restart the node: it takes the key once its runs have ended and are told'],
  ]);
}

/** @param node the `node` command */
export function addAdmissionCommands(node: Command): void {
  node
    .command('add <name>')
    .description('admit one machine: prints a join token, good once')
    .option('--label <k=v>', 'label for placement; repeat for more', collect, [])
    .option('--realm <realm>', 'realm it may serve; repeat for more; default all', collect, [])
    .option('--replaces <node>', 'a new key for this node: name, labels and realms are kept')
    .option('--ttl <seconds>', 'how long the token is good', String(TOKEN_SECONDS_MAX))
    .option('--key <file-or-name>', 'admin key to sign with')
    .action((name: string, options: PlaceOptions, command: Command) =>
      addNode(sessionOf(command), name, options),
    );
  node
    .command('admit <fingerprint>')
    .description('let in a machine that waits, by its node id or a beginning of it')
    .option('--name <name>', 'what the node is called')
    .option('--label <k=v>', 'label for placement; repeat for more', collect, [])
    .option('--realm <realm>', 'realm it may serve; repeat for more; default all', collect, [])
    .option('--replaces <node>', 'a new key for this node: name, labels and realms are kept')
    .option('--ttl <seconds>', 'how long it may take to come back', '86400')
    .option('--key <file-or-name>', 'admin key to sign with')
    .option('-y, --yes', 'do not ask')
    .option(
      '--unsigned',
      'write it for an admin elsewhere to sign (hypha cosign, submit), send nothing',
    )
    .option('--out <file>', 'with --unsigned: where to write it; default: stdout')
    .action((fingerprint: string, options: AdmitOptions, command: Command) =>
      admit(sessionOf(command), fingerprint, options),
    );
  node
    .command('rekey [name]')
    .description('make a new key for a node of this machine, which it takes at its next start')
    .action((name: string | undefined, _options: unknown, command: Command) =>
      rekeyNode(sessionOf(command), name),
    );
}

/** Empty, with a remark, when the ledger cannot say. */
export async function tryListPending(session: Session): Promise<NodeView[]> {
  try {
    return await listPending(session.ledger());
  } catch (error) {
    if (!isHyphaError(error)) throw error;
    session.output.note(`nodes that wait are not listed: ${error.message}`);
    return [];
  }
}
