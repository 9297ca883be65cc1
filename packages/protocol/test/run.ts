import {
  type AuditBundle,
  type Envelope,
  eventHash,
  GENESIS_HASH,
  hex,
  type JournalBody,
  type JournalEvent,
  type PayloadInput,
  type RunId,
  runIdOf,
  type Signer,
  signReceipt,
  utf8,
  verifyScript,
} from '../src/index.ts';
import { nodeVerifier } from '../src/node/index.ts';
import { enrolmentOf, type Fleet, NOW, scriptOf } from './fleet.ts';

const OUTPUT = '{"hello":"world"}';
const OUTPUT_SHA256 = hex(nodeVerifier.sha256(utf8(OUTPUT)));

/** A journal whose every event is chained to the one before. */
export function journalOf(run: RunId, bodies: readonly JournalBody[]): JournalEvent[] {
  let prev = GENESIS_HASH;
  return bodies.map((body, index) => {
    const event = { run, seq: index + 1, epoch: 1, at: NOW * 1000 + index, prev, body };
    prev = eventHash(nodeVerifier, event);
    return { ...event, hash: prev };
  });
}

/** What an honest node's receipt says of this journal. */
function outcomeOf(bodies: readonly JournalBody[]) {
  const committed = bodies.find((body) => body.type === 'committed');
  const finished = bodies.find((body) => body.type === 'finished');
  return {
    state: finished?.state ?? 'failed',
    steps: bodies.filter(({ type }) => type === 'step-result' || type === 'step-error').length,
    undone: finished?.undone ?? 0,
    leftovers: finished?.leftovers ?? [],
    ...(committed === undefined ? {} : { outputSha256: committed.outputSha256 }),
  };
}

/** One succeeded run of the fleet's node with all that proves it; each part can be replaced. */
export function bundleOf(
  fleet: Fleet,
  options: {
    readonly submission?: Envelope;
    readonly bodies?: (bodies: JournalBody[]) => JournalBody[];
    readonly receipt?: Partial<PayloadInput<'receipt'>>;
    readonly receiptSigner?: Signer;
  } = {},
): AuditBundle {
  const { authority, nodeId } = fleet;
  const submission = options.submission ?? scriptOf(fleet);
  const { payload, digest, keyids } = verifyScript(nodeVerifier, {
    envelope: submission,
    authority,
    profile: 'execute',
    nowSeconds: NOW,
  });
  const run = runIdOf(nodeVerifier, digest, nodeId);
  const { realm, deployment, generation, mode } = payload;
  const about = { envelopeDigest: digest, node: nodeId, realm, deployment, generation, mode };
  const bodies: JournalBody[] = [
    { type: 'accepted', ...about, keyids: [...keyids], authoritySeq: authority.seq },
    { type: 'started', runner: 'r1', bootId: 'b', abi: 'hypha-1', nowMs: NOW * 1000 },
    {
      type: 'step-intent',
      step: 1,
      verb: 'volume.ensure',
      class: 'ensure',
      args: {},
      rid: null,
      kind: 'volume',
      name: 'data',
      action: 'create',
      before: null,
      desired: null,
    },
    { type: 'step-result', step: 1, result: {}, durationMs: 3 },
    { type: 'committed', output: OUTPUT, outputSha256: OUTPUT_SHA256, desired: [] },
    { type: 'finished', state: 'succeeded', problem: null, undone: 0, leftovers: [] },
  ];
  const journal = journalOf(run, options.bodies?.(bodies) ?? bodies);
  const outcome = outcomeOf(journal.map(({ body }) => body));
  const receipt = signReceipt(
    {
      v: 1,
      run,
      ...about,
      ...outcome,
      startedAt: NOW * 1000,
      endedAt: NOW * 1000 + 5,
      journalHead: journal.at(-1)?.hash ?? GENESIS_HASH,
      prev: null,
      seq: 1,
      authoritySeq: authority.seq,
      ...options.receipt,
    },
    options.receiptSigner ?? fleet.node,
  );
  const { admission, enrolment } = enrolmentOf(fleet);
  const [genesis] = authority.updates;
  if (genesis === undefined) throw new Error('the fleet has no genesis');
  const chain = authority.updates.slice(1);
  return { v: 1, genesis, authority: chain, admission, enrolment, submission, journal, receipt };
}
