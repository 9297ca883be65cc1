import { type Authority, HyphaError, type KeyRecord, NodeId } from '@hypha/protocol';
import type { Command } from 'commander';
import { changeAuthority, type UpdateFlags, updateOptions } from '../authority-update.ts';
import { type Session, selectNodes, sessionOf } from '../session.ts';
import { usualSigners } from './authority-changes.ts';
import { listNodes } from './node.ts';

interface RevokeOptions extends UpdateFlags {
  reason: string;
}

export function revokeCommands(authority: Command): void {
  updateOptions(authority.command('revoke <name-or-keyid>'))
    .description('a key, by the name of its grant or its keyid, may do nothing from now on')
    .option('--reason <text>', 'kept in the chain', 'revoked by hand')
    .action(async (wanted: string, options: RevokeOptions, command: Command) => {
      const session = sessionOf(command);
      await changeAuthority(
        session,
        (state) => ({
          type: 'revoke',
          keyid: findGrant(state, wanted).keyid,
          reason: options.reason,
        }),
        options,
        (_change, state) => usualSigners(session, findGrant(state, wanted).grant.role),
      );
    });

  updateOptions(authority.command('revoke-node <name-or-id>'))
    .description('a node may report, receive and prove nothing from now on')
    .option('--reason <text>', 'kept in the chain', 'revoked by hand')
    .action(async (wanted: string, options: RevokeOptions, command: Command) => {
      const session = sessionOf(command);
      const node = await nodeIdOf(session, wanted);
      await changeAuthority(
        session,
        () => ({ type: 'revoke-node', node, reason: options.reason }),
        options,
        () => usualSigners(session, 'operator'),
      );
    });
}

/** An id needs nobody to look it up: a node whose record is gone can be revoked too. */
async function nodeIdOf(session: Session, wanted: string): Promise<NodeId> {
  const id = NodeId.safeParse(wanted);
  if (id.success) return id.data;
  const [node] = selectNodes(await listNodes(session), [wanted]);
  if (node === undefined) throw new HyphaError('E_NOT_FOUND', `no node ${wanted}`);
  return node.id;
}

/** Throws `E_NOT_FOUND`; `E_ARGUMENT` listing the keyids when several have the name. */
function findGrant(authority: Authority, wanted: string): KeyRecord {
  const matches = authority
    .listKeys()
    .filter(
      ({ keyid, grant, status }) =>
        status === 'active' && (keyid === wanted || grant.name === wanted),
    );
  const [match, second] = matches;
  if (match === undefined) {
    throw new HyphaError('E_NOT_FOUND', `no active grant for ${wanted}`, {
      hint: 'hypha authority show',
    });
  }
  if (second === undefined) return match;
  throw new HyphaError('E_ARGUMENT', `${matches.length} keys are named ${wanted}`, {
    details: matches.map(({ keyid, grant }) => `${keyid} (${grant.role})`),
    hint: 'name the keyid',
  });
}
