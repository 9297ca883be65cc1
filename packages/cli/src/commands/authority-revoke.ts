import {
  type Authority,
  type AuthorityChange,
  HyphaError,
  type KeyRecord,
  NodeId,
  type Signer,
} from '@hypha/protocol';
import type { Command } from 'commander';
import { fetchAuthority } from '../authority-chain.ts';
import { changeOf } from '../authority-change.ts';
import { showSent, updateAuthority } from '../authority-update.ts';
import { parseDuration } from '../option-parsers.ts';
import { RevocationWatch } from '../revocation-watch.ts';
import { type Session, selectNodes, sessionOf } from '../session.ts';
import { isWritten, type SigningFlags, signingOptions } from '../signing-flags.ts';
import { usualSigners } from './authority-changes.ts';
import { listNodes } from './node.ts';

/** Longer than a node needs to be called unreachable. */
export const WAIT_FOR_NODES = '90s';

interface RevokeOptions extends SigningFlags {
  reason: string;
  wait?: true;
  timeout: string;
}

function revokeOptions(command: Command): Command {
  return signingOptions(command)
    .option('--reason <text>', 'kept in the chain', 'revoked by hand')
    .option('--wait', 'until every reachable node knows; then tell what it stopped and had touched')
    .option('--timeout <time>', 'with --wait: how long', WAIT_FOR_NODES);
}

export function revokeCommands(authority: Command): void {
  revokeOptions(authority.command('revoke <name-or-keyid>'))
    .description('a key, by the name of its grant or its keyid, may do nothing from now on')
    .action(async (wanted: string, options: RevokeOptions, command: Command) => {
      const session = sessionOf(command);
      const state = await fetchAuthority(session);
      const { keyid, grant } = findGrant(state, wanted);
      const change = { type: 'revoke', keyid, reason: options.reason } as const;
      await revoke(session, state, change, options, () => usualSigners(session, grant.role));
    });

  revokeOptions(authority.command('revoke-node <name-or-id>'))
    .description('a node may report, receive and prove nothing from now on')
    .action(async (wanted: string, options: RevokeOptions, command: Command) => {
      const session = sessionOf(command);
      const state = await fetchAuthority(session);
      const node = await nodeIdOf(readerOf(session, state), wanted);
      const change = { type: 'revoke-node', node, reason: options.reason } as const;
      await revoke(session, state, change, options, () => usualSigners(session, 'operator'));
    });
}

export type Revocation = Extract<AuthorityChange, { type: 'revoke' | 'revoke-node' }>;

async function revoke(
  session: Session,
  state: Authority,
  change: Revocation,
  options: RevokeOptions,
  signers: () => Signer[],
): Promise<void> {
  const doneAt = findRevocation(state, change);
  if (doneAt !== undefined && options.wait !== true) {
    throw new HyphaError('E_CONFLICT', `authority update ${doneAt} did that already`, {
      hint: 'see who knows of it and what is left to do: the same command with --wait',
    });
  }
  if (options.wait !== true || isWritten(options)) {
    const sent = await updateAuthority(session, state, change, options, signers);
    if (sent !== undefined) showSent(session, change, sent);
    return;
  }
  const timeoutMs = parseDuration(options.timeout, '--timeout') * 1000;
  await watchRevocation(readerOf(session, state, change), change, timeoutMs, async () => {
    if (doneAt !== undefined) return doneAt;
    const sent = await updateAuthority(session, state, change, options, signers);
    return sent?.seq ?? state.seq;
  });
}

/** Update that revoked the same before: then there is only to wait. */
function findRevocation(state: Authority, change: Revocation): number | undefined {
  if (change.type === 'revoke') return state.findKey(change.keyid)?.revokedAtSeq;
  if (!state.isNodeRevoked(change.node)) return undefined;
  const updates = state.updates.map(changeOf);
  const found = updates.find(
    (update) => update.change.type === 'revoke-node' && update.change.node === change.node,
  );
  return found?.seq;
}

/** Reads with a key that may: one that is revoked, or about to be, cannot even do that. */
export function readerOf(session: Session, state: Authority, change?: Revocation): Session {
  const revoked = change?.type === 'revoke' ? change.keyid : undefined;
  return session.readingWith(
    (keyid) => keyid !== revoked && state.findKey(keyid)?.status === 'active',
  );
}

/** @param send makes it so; answers the seq of the update. Sets the exit code. */
export async function watchRevocation(
  session: Session,
  change: Revocation,
  timeoutMs: number,
  send: () => Promise<number>,
): Promise<void> {
  const revoked = change.type === 'revoke' ? { keyid: change.keyid } : { node: change.node };
  const watch = await RevocationWatch.begin(session, revoked);
  const seq = await send();
  session.output.note(`authority update ${seq}; waiting for the nodes`);
  const except = change.type === 'revoke-node' ? { except: change.node } : {};
  process.exitCode = await watch.finish(seq, { timeoutMs, ...except });
}

/** An id needs nobody to look it up: a node whose record is gone can be revoked too. */
async function nodeIdOf(session: Session, wanted: string): Promise<NodeId> {
  const id = NodeId.safeParse(wanted);
  if (id.success) return id.data;
  const [node] = selectNodes(await listNodes(session), [wanted]);
  if (node === undefined) throw new HyphaError('E_NOT_FOUND', `no node ${wanted}`);
  return node.id;
}

/**
 * An active grant; one that was revoked where there is no other.
 * @throws HyphaError `E_NOT_FOUND`; `E_ARGUMENT` listing the keyids when several have the name
 */
function findGrant(authority: Authority, wanted: string): KeyRecord {
  const named = authority
    .listKeys()
    .filter(({ keyid, grant }) => keyid === wanted || grant.name === wanted);
  const active = named.filter(({ status }) => status === 'active');
  const matches = active.length > 0 ? active : named;
  const [match, second] = matches;
  if (match === undefined) {
    throw new HyphaError('E_NOT_FOUND', `no grant for ${wanted}`, {
      hint: 'hypha authority show',
    });
  }
  if (second === undefined) return match;
  throw new HyphaError('E_ARGUMENT', `${matches.length} keys are named ${wanted}`, {
    details: matches.map(({ keyid, grant, status }) => `${keyid} (${grant.role}, ${status})`),
    hint: 'name the keyid',
  });
}
